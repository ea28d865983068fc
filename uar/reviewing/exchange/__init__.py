"""Reviews as files of other labelling tools, and back."""
