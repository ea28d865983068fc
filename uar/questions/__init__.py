"""Questions for a corpus that has none: an LLM writes them from passages, and filters keep those that find their passage."""

from uar.questions.generated import Generate, OwnQuestions
from uar.questions.writer import QuestionWriter

__all__ = ["Generate", "OwnQuestions", "QuestionWriter"]
