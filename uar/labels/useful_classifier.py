"""P(useful) from features of a passage, fitted on a few labelled questions."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from uar.errors import UserError

MODELS = ("logistic", "boosting")
PENALTIES = (0.01, 0.1, 1.0, 10.0)  # inverse strengths of the L2 penalty that are tried
FOLDS = 5


@dataclass(frozen=True)
class Fitted:
    """`held_out`: (pairs,) probabilities of the pairs that it was fitted on, each by a model that saw no other pair of its
    question. `penalty`: inverse strength of the L2 penalty, of `logistic`."""

    model: Any
    held_out: np.ndarray
    penalty: float | None

    def probability(self, values: np.ndarray) -> np.ndarray:
        """(pairs,) of (pairs, features), which may hold nan."""
        return _positive(self.model, values)


def fit(values: np.ndarray, human: np.ndarray, query: np.ndarray, model: str) -> Fitted | None:
    """values: (pairs, features), nan where there is none; human: (pairs,) bool, of both kinds; query: (pairs,) question of a
    pair. The penalty is that of the best likelihood by cross-validation over questions; None where there are too few for it,
    so that nobody could say what was learned."""
    try:
        from sklearn.model_selection import StratifiedGroupKFold
    except ImportError as error:
        raise UserError("combine=learned: scikit-learn is not installed; run: pip install 'uar[learned]'") from error

    folds = min(FOLDS, len(np.unique(query[human])), len(np.unique(query[~human])))
    splits = []
    if folds > 1:
        cut = StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(values, human, query)
        splits = [(a, b) for a, b in cut if len(np.unique(human[a])) == 2]
    if sum(len(b) for _, b in splits) < len(human):
        return None
    choices = PENALTIES if model == "logistic" else (1.0,)
    tried = {c: _held_out(values, human, query, splits, model, c) for c in choices}
    penalty = min(tried, key=lambda c: _log_loss(tried[c], human))
    fitted = _model(model, penalty, query, human).fit(values, human)
    return Fitted(fitted, tried[penalty], penalty if model == "logistic" else None)


def _held_out(
    values: np.ndarray, human: np.ndarray, query: np.ndarray, splits: list[tuple[np.ndarray, np.ndarray]], model: str, c: float
) -> np.ndarray:
    found = np.zeros(len(human))
    for learnt, rest in splits:
        one = _model(model, c, query[learnt], human[learnt]).fit(values[learnt], human[learnt])
        found[rest] = _positive(one, values[rest])
    return found


def _model(name: str, penalty: float, query: np.ndarray, human: np.ndarray) -> Any:
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    filled = SimpleImputer(keep_empty_features=True)
    if name == "logistic":
        return make_pipeline(filled, StandardScaler(), LogisticRegression(C=penalty, max_iter=1_000))
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.model_selection import StratifiedGroupKFold

    trees = HistGradientBoostingClassifier(max_iter=100, max_leaf_nodes=8, min_samples_leaf=10, random_state=0)
    folds = min(FOLDS, len(np.unique(query[human])), len(np.unique(query[~human])))
    if folds < 2:
        return make_pipeline(filled, trees)
    cut = StratifiedGroupKFold(folds, shuffle=True, random_state=0).split(query[:, None], human, query)
    return make_pipeline(filled, CalibratedClassifierCV(trees, cv=list(cut)))


def _positive(model: Any, values: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict_proba(values))[:, 1] if len(values) else np.zeros(0)


def _log_loss(p: np.ndarray, human: np.ndarray) -> float:
    right = np.where(human, p, 1 - p)
    return -float(np.log(np.maximum(right, math.exp(-30))).mean())
