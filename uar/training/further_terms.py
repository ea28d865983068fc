"""Terms beside the loss, of texts that are encoded as queries beside those of a batch."""

from dataclasses import dataclass

import torch

from uar.losses.invariance import invariance
from uar.losses.misleading import misleading
from uar.retrievers.trainable import Scored, Texts, first_places
from uar.training.batches import Batch
from uar.training.masks import among


@dataclass(frozen=True)
class FurtherTerms:
    """The weight of each term, 0 where it is not learnt. A batch without its texts has none of them."""

    invariance: float = 0.0
    misleading: float = 0.0

    def texts(self, batch: Batch) -> Texts:
        """The queries, then their variants, then the misleading texts of their positives."""
        own = among(batch.rows, batch.shown)
        wordings = 1 + len(batch.variants) // len(batch.queries)
        theirs = batch.rows == batch.misled[batch.misleading_of][:, None]
        queries = [*batch.queries, *batch.variants, *batch.misleading]
        return Texts(queries, batch.passages, batch.rows, torch.cat([own.repeat(wordings, 1), theirs]), most=batch.most)

    def of(self, batch: Batch, every: Scored, scale: float | torch.Tensor, weights: torch.Tensor) -> dict[str, torch.Tensor]:
        """By name, each term times its weight. `every`: scores of `texts`; `weights`: (queries,) of the rows that count."""
        queries, wordings = len(batch.queries), 1 + len(batch.variants) // len(batch.queries)
        worded = slice(queries * wordings)
        views = [scale * view for view in every.views or (every.scores,)]
        found = {}
        if wordings > 1:
            _, valid = batch.masks(every.rows)
            if every.scored is not None:
                valid = valid & every.scored[:queries]
            each = [invariance(view[worded].unflatten(0, (wordings, -1)), valid, weights) for view in views]
            found["invariance"] = self.invariance * torch.stack(each).mean()
        if batch.misleading:
            column = ((every.rows == batch.misled[:, None]) & first_places(every.rows)).int().argmax(dim=1)
            of = batch.misleading_of
            each = []
            for view in views:
                own = view[:queries].gather(1, column[:, None])[:, 0]
                others = view[worded.stop :].gather(1, column[of][:, None])[:, 0]
                each.append(misleading(own, others, of, weights))
            found["misleading"] = self.misleading * torch.stack(each).mean()
        return found
