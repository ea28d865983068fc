"""What a trained model is to others: in errors, in its model card, on a hub."""

from dataclasses import dataclass

VECTORS = """from sentence_transformers import {kind}

model = {kind}("{model}")
queries = model.encode_query(["who makes honey"])
passages = model.encode_document(["Bees make honey from the nectar of flowers."])
scores = model.similarity(queries, passages)"""


@dataclass(frozen=True)
class Kind:
    """`name` in errors and model cards; `loads_as`, the class of sentence-transformers that loads what `save` writes, empty
    where none does; `task` and `tags` of a hub; `example`: Python that scores a passage with `loads_as`, {kind} and {model}
    in their places."""

    name: str
    loads_as: str = ""
    task: str = ""
    tags: tuple[str, ...] = ()
    example: str = VECTORS
