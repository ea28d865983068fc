"""Words by which a reply denies, limits or takes back what it names, in the languages that are asked about most."""

import re

ENGLISH = """no nope not nor none never neither cannot irrelevant unrelated useless unhelpful exclude excluded omitted lack
lacks hardly barely scarcely unlikely insufficient insufficiently rejected discarded partly partial partially
marginal marginally tangential tangentially weakly loosely vaguely"""
OTHERS = """nein nicht kein keine keinen keinem keiner niet geen non pas hors aucun aucune nunca ningún ninguno ninguna
não nem nenhum nenhuma nessun nessuno nessuna не нет ни لا ليس ليست غير"""
NO = frozenset(f"{ENGLISH} {OTHERS}".split())
PARTS = re.compile(
    r"n['’]t\b|\boff[- ]topic\b|\bof\s+little\b|[不没无無否✗✘✖❌☒❎]|ない|なし|ません|いいえ|않|없|아니|ไม่", re.IGNORECASE
)
PREDICATE = re.compile(
    r"\s*(?:is|are|was|were|does|do|did|has|have|seems?|appears?|would|could|can|may|might|will)((?:n['’]t\b)?(?:\s+\S+){0,3})",
    re.IGNORECASE,
)
VERDICT = re.compile(r"[\W_]*(?:\w+(?:[.,/]\d+)?)?[\W_]*")
YES = re.compile(
    r"[^\w✓✔✅☑]*(?:yes|true|relevant|useful|helpful|selected|included?|high|[✓✔✅☑]\ufe0f?)[\W_]*", re.IGNORECASE
)
HINTS = ("thought", "reflection", "mistake", "apologies", "wait", "correct", "revis", "updated", "final")  # of REVISES
REVISES = re.compile(
    r"\b(?:on\s+(?:second\s+thoughts?|reflection)|my\s+(?:mistake|apologies)|wait\s*[,.:;!—–-]"
    r"|(?:corrected|correction|revised|revision|updated|final)\s*(?:(?:selection|answer|list|ranking)\b|:))",
    re.IGNORECASE,
)
BACKWARDS = re.compile(
    r"\b(?:least|worst)\b[^.\n]{0,40}\b(?:first|to\s+(?:the\s+)?(?:most|best))\b|\b(?:ascending|increasing|reversed?)\s+order\b",
    re.IGNORECASE,
)
BOUNDS = re.compile(
    r"(?:(?:^|[^\w/\"'])[<>]=?|[≤≥~≈±]"
    r"|(?:\b(?:than|at\s+(?:least|most)|above|below|under|over|up\s+to|almost|nearly|but|not|no|never|cannot|passage|document)"
    r"|n['’]t)(?:\s+(?:an?|the|be|deserve|get|merit|grade|of))*)\s*$",
    re.IGNORECASE,
)
COMPARES = re.compile(r"\b(?:than|less|least|worse|worst|other)\b", re.IGNORECASE)


def denies(text: str) -> bool:
    """Whether a text holds a no."""
    return not NO.isdisjoint(re.findall(r"\w+", text.lower())) or PARTS.search(text) is not None


def begins_with_denial(text: str) -> bool:
    """Whether a text goes on as of its subject: `is not relevant`."""
    predicate = PREDICATE.match(text)
    return predicate is not None and denies(predicate[1])


def is_doubtful(reason: str) -> bool:
    """Whether a reason that stands beside a passage may be one against it: it holds a no, or is one word or number that is no
    clear yes."""
    return denies(reason) or bool(VERDICT.fullmatch(reason) and not YES.fullmatch(reason))


def takes_back(text: str) -> bool:
    """Whether a text says that what stands before it does not count."""
    lowered = text.lower()
    return any(hint in lowered for hint in HINTS) and REVISES.search(text) is not None
