"""Text files of several kinds as sections: headings and paragraphs."""

from uar.collections.sections.reading import PDF, READERS, Document, read_document
from uar.collections.sections.section import Section, Unreadable, joined

__all__ = ["PDF", "READERS", "Document", "Section", "Unreadable", "joined", "read_document"]
