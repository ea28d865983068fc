"""Several prefixes, each with several targets, packed into one row of tokens: a prefix is read once for all its targets,
and nothing is padded."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Packed:
    """One row.

    ids, positions: (1, length); allowed: (1, 1, length, length), true where a token may see another; predict: (kept,),
    positions whose next-token distribution is needed; pick: (target tokens,), index into `predict` for each target token;
    wanted: (target tokens,), the token that stands there; owner: (target tokens,), number of its target.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    allowed: torch.Tensor
    predict: torch.Tensor
    pick: torch.Tensor
    wanted: torch.Tensor
    owner: torch.Tensor


def pack(groups: Sequence[tuple[Sequence[int], Sequence[Sequence[int]]]]) -> Packed:
    """`groups`: (prefix token ids, list of target token ids), no prefix and no target empty.

    Targets are numbered through all groups in order. A target sees its prefix and itself, never another target.
    """
    ids: list[int] = []
    positions: list[int] = []
    group_of: list[int] = []
    part_of: list[int] = []  # 0 for a prefix, the target's number from 1 in its group
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
    group, part = torch.tensor(group_of), torch.tensor(part_of)
    index = torch.arange(len(ids))
    same = group[:, None] == group[None, :]
    reach = (part[None, :] == 0) | (part[:, None] == part[None, :])
    predict, pick = torch.tensor(sources).unique(return_inverse=True)
    return Packed(
        ids=torch.tensor(ids)[None],
        positions=torch.tensor(positions)[None],
        allowed=(same & reach & (index[None, :] <= index[:, None]))[None, None],
        predict=predict,
        pick=pick,
        wanted=torch.tensor(wanted),
        owner=torch.tensor(owner),
    )
