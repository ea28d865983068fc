"""Measures of answers that an LLM judges, without gold answers: one file a judge."""
