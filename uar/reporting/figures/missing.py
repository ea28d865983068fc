"""Why a figure cannot be drawn."""


class Missing(Exception):
    """The runs do not hold what a figure shows; the message says what is missing."""
