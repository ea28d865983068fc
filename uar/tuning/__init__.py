"""Tuning of LLMs for prompts that are asked elsewhere in the package."""
