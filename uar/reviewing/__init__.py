"""People's labels: a page on which they judge passages, what it keeps, and what that says of people and of the LLM."""
