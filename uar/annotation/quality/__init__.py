"""How good an annotator's labels are: against people, against another annotator, and as probabilities."""

from uar.annotation.quality.agreement import agreement, table_of
from uar.annotation.quality.comparison import compare
from uar.annotation.quality.disagreements import Disagreement, worst_disagreements
from uar.annotation.quality.from_files import judgements_of

__all__ = ["Disagreement", "agreement", "compare", "judgements_of", "table_of", "worst_disagreements"]
