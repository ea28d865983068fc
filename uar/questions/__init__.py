"""Questions for a corpus that has none: an LLM writes them from passages, and filters keep those that find their passage."""

from uar.questions.generated import Generate, OwnQuestions
from uar.questions.text_pairs import DescriptionWriter, HardWriter
from uar.questions.writer import QuestionWriter

__all__ = ["DescriptionWriter", "Generate", "HardWriter", "OwnQuestions", "QuestionWriter"]
