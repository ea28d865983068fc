"""Rounds of choosing questions, having them labelled, training and scoring."""
