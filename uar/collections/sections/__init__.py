"""Text files of several kinds as sections: headings and paragraphs."""

from uar.collections.sections.reading import READERS, Unreadable, read_sections
from uar.collections.sections.section import Section

__all__ = ["READERS", "Section", "Unreadable", "read_sections"]
