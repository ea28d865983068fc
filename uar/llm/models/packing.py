"""Several prefixes, each with several targets, packed into one row of tokens: a prefix is read once for all its targets,
and nothing is padded."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from uar.machine.feed import placed

ALIGNED = 16  # lengths that attention kernels take without copying


@dataclass(frozen=True)
class Bucket:
    """Groups of like length, side by side, for attention.

    index: (groups, longest), positions in the row, a shorter group filled up with its first one; part: the same shape, the
    `Packed.part` of each, None where a token sees all before it; kept: (tokens,), which of the flattened (groups x longest)
    are tokens, not filling; tokens: (tokens,), where they stand in the row.
    """

    index: torch.Tensor
    part: torch.Tensor | None
    kept: torch.Tensor
    tokens: torch.Tensor

    @property
    def mask(self) -> torch.Tensor | None:
        """(groups, 1, longest, longest), true where a token may see another; None where a token sees all before it."""
        return None if self.part is None else _reach(self.part)[:, None]

    def on(self, device: torch.device) -> "Bucket":
        part = None if self.part is None else placed(self.part, device)
        return Bucket(placed(self.index, device), part, placed(self.kept, device), placed(self.tokens, device))


@dataclass(frozen=True)
class Packed:
    """One row.

    ids, positions: (1, length); group, part: (length,), the number of a token's group, and 0 in a prefix or the number of
    its target from 1; predict: (kept,), positions whose next-token distribution is needed; pick: (target tokens,), index
    into `predict` for each target token; wanted: (target tokens,), the token that stands there; owner: (target tokens,),
    number of its target.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    group: torch.Tensor
    part: torch.Tensor
    predict: torch.Tensor
    pick: torch.Tensor
    wanted: torch.Tensor
    owner: torch.Tensor

    def allowed(self) -> torch.Tensor:
        """(1, 1, length, length), true where a token may see another."""
        return (_reach(self.part) & (self.group[:, None] == self.group[None, :]))[None, None]

    def buckets(self) -> list[Bucket]:
        """The groups by their lengths, so that filling up at most doubles them; those of one target apart."""
        alike: defaultdict[tuple[int, bool], list[torch.Tensor]] = defaultdict(list)
        for tokens in torch.split(torch.arange(len(self.group)), self.group.bincount().tolist()):
            several = bool((self.part[tokens] > 1).any())
            alike[max(ALIGNED, len(tokens) - 1).bit_length(), several].append(tokens)
        return [self._bucket(groups, several) for (_, several), groups in alike.items()]

    def _bucket(self, groups: Sequence[torch.Tensor], several: bool) -> Bucket:
        longest = -(-max(map(len, groups)) // ALIGNED) * ALIGNED
        kept = torch.stack([torch.arange(longest) < len(tokens) for tokens in groups])
        index = torch.stack([torch.cat([tokens, tokens[:1].expand(longest - len(tokens))]) for tokens in groups])
        return Bucket(index, self.part[index] if several else None, kept.view(-1).nonzero()[:, 0], torch.cat(list(groups)))


def _reach(part: torch.Tensor) -> torch.Tensor:
    """(..., length) -> (..., length, length): which tokens of its group each may see: those before it, of the prefix or of
    its own target."""
    order = torch.arange(part.shape[-1], device=part.device)
    seen, own = part[..., None, :], part[..., :, None]
    return ((seen == 0) | (own == seen)) & (order[None, :] <= order[:, None])


def pack(groups: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]]) -> Packed:
    """`groups`: (prefix token ids, list of target token ids), no prefix and no target empty.

    Targets are numbered through all groups in order. A target sees its prefix and itself, never another target.
    """
    ids: list[int] = []
    positions: list[int] = []
    group_of: list[int] = []
    part_of: list[int] = []
    sources: list[int] = []  # for each target token, the packed position that predicts it
    wanted: list[int] = []
    owner: list[int] = []
    number = 0
    for g, (prefix, targets) in enumerate(groups):
        last = len(ids) + len(prefix) - 1
        ids.extend(prefix)
        positions.extend(range(len(prefix)))
        group_of.extend([g] * len(prefix))
        part_of.extend([0] * len(prefix))
        for t, target in enumerate(targets, start=1):
            start = len(ids)
            body = target[:-1]  # the last token is predicted only
            ids.extend(body)
            positions.extend(range(len(prefix), len(prefix) + len(body)))
            group_of.extend([g] * len(body))
            part_of.extend([t] * len(body))
            sources.extend([last, *range(start, start + len(body))])
            wanted.extend(target)
            owner.extend([number] * len(target))
            number += 1
    predict, pick = torch.unique(torch.tensor(sources), return_inverse=True)
    return Packed(
        ids=torch.tensor(ids)[None],
        positions=torch.tensor(positions)[None],
        group=torch.tensor(group_of),
        part=torch.tensor(part_of),
        predict=predict,
        pick=pick,
        wanted=torch.tensor(wanted),
        owner=torch.tensor(owner),
    )
