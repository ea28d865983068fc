"""Words by which a reply denies, limits or takes back what it names, in the languages that are asked about most."""

import re

ENGLISH = (
    r"no|nope|not|nor|none|never|neither|cannot|irrelevant|unrelated|useless|unhelpful|off[- ]topic|excluded?|omitted|lacks?"
    r"|hardly|barely|scarcely|unlikely|insufficient(?:ly)?|rejected|discarded|partly|partial(?:ly)?|marginal(?:ly)?"
    r"|tangential(?:ly)?|weakly|loosely|vaguely|of\s+little"
)
OTHERS = (
    r"nein|nicht|kein\w*|niet|geen|non|pas|hors|aucune?s?|nunca|ning[uú]n\w*|não|nem|nenhum\w*|nessun\w*|не|нет|ни"
    r"|لا|ليس|ليست|غير"
)
SIGNS = "[不没无無否✗✘✖❌☒❎]|ない|なし|ません|いいえ|않|없|아니|ไม่"
NO = re.compile(rf"\b(?:{ENGLISH}|{OTHERS})\b|n['’]t\b|{SIGNS}", re.IGNORECASE)
DENIES = re.compile(
    r"\s*(?:is|are|was|were|does|do|did|has|have|seems?|appears?|would|could|can|may|might|will)"
    rf"(?:n['’]t\b|(?:\s+\w+){{0,2}}\s+(?:{NO.pattern}))",
    re.IGNORECASE,
)
VERDICT = re.compile(r"[\W_]*(?:\w+(?:[.,/]\d+)?)?[\W_]*")
YES = re.compile(
    r"[^\w✓✔✅☑]*(?:yes|true|relevant|useful|helpful|selected|included?|high|[✓✔✅☑]\ufe0f?)[\W_]*", re.IGNORECASE
)
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


def is_doubtful(reason: str) -> bool:
    """Whether a reason that stands beside a passage may be one against it: it holds a no, or is one word or number that is no
    clear yes."""
    return NO.search(reason) is not None or bool(VERDICT.fullmatch(reason) and not YES.fullmatch(reason))
