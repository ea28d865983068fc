"""RAG over a run: top passages -> generated answers -> answer measures."""
