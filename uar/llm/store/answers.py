"""What a store holds that answers a request to a model, under the keys of this version and of earlier ones."""

from collections.abc import Callable, Iterator

from uar.llm.record import Record, Request, without_pattern
from uar.llm.store.store import Store, best

FREE, HELD = ("transformers",), ("vllm",)  # engines that never and that always held replies to a pattern


def answer(
    store: Store,
    request: Request,
    model: str,
    read: Callable[[Record], str],
    held: bool | None = None,
    commit: str | None = None,
) -> Record | None:
    """What is kept: of the good replies the newest, else the newest failure. `model`: its name; `commit`: on the hub, where
    it is known, so that records of another one are none. `read`: what a record is taken for. `held`: whether the engine holds
    replies to the request's pattern; None where there is no engine, and either will do."""
    return best((record for record in _kept(store, request, model, held) if record.is_of(commit)), read)


def _kept(store: Store, request: Request, model: str, held: bool | None) -> Iterator[Record]:
    free = without_pattern(request)
    patterned = free != request
    others = () if held is None or not patterned else FREE if held else HELD
    wanted: list[tuple[list[str], Callable[[Record], bool], Request]] = []
    for variant in [request, free] if patterned and held is None else [free if patterned and not held else request]:
        wanted.append((variant.keys(model), variant.answered_by, variant))
        if variant != request:
            wanted.append((variant.earlier_keys(model), lambda record: True, variant))
    wanted.append((request.earlier_keys(model), lambda record: record.engine not in others, request))
    found = store.of_keys(key for keys, *_ in wanted for key in keys)
    for keys, answers, asked in wanted:
        for key in keys:
            yield from (asked.as_given(record, model) for record in filter(answers, found[key]))
