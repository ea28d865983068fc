"""The `vllm` engine, in this process."""

import gc
import logging
import math
import os
import sys
import time
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, takewhile
from typing import Any

import torch

from uar.errors import EngineError
from uar.llm.models.ending import Ends, early_end
from uar.llm.models.model import Model
from uar.llm.models.tokens import CannotScore, chat_ids, choice_ids, prefix_ids, target_ids
from uar.llm.record import Choose, Generate, Outcome, Reply, Request, Score
from uar.llm.replies import outcome_of
from uar.machine.model_files import commit_of, locate
from uar.machine.precision import bf16_is_fast, device

log = logging.getLogger(__name__)
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
ONE_TOKEN: dict[str, Any] = {"max_tokens": 1, "temperature": 0.0, "detokenize": False}
IN_FLIGHT = 0.6  # of the key-value cache: the rest keeps what prompts that follow will begin with
COMPUTING = 10  # hundredths of a GPU's memory that stay free beside vLLM where a retriever lies there too
CPU_BLOCK = 32  # tokens that a prefix cache on a CPU keeps as one; vLLM's own 128 read much of a shared prefix again


@dataclass
class _Asked:
    """A request and its prompt. `target`: token ids of a score's target, or of the choices. `ends`: whether a text may end.
    `ahead`: prompt tokens that were computed for this request before its own turn."""

    ticket: int
    request: Request
    prompt: list[int]
    target: list[int] = field(default_factory=list)
    ends: Ends | None = None
    ahead: int = 0
    start: float = field(default_factory=time.perf_counter)


class _Recent:
    """The beginnings of the prompts that were read last, in blocks, as many as the prefix cache holds."""

    def __init__(self, block: int, most: int) -> None:
        self._block, self._most = block, most
        self._known: OrderedDict[int, None] = OrderedDict()

    def add(self, ids: Sequence[int]) -> None:
        for beginning in self._beginnings(ids):
            self._known[beginning] = None
            self._known.move_to_end(beginning)
        while len(self._known) > self._most:
            self._known.popitem(last=False)

    def clear(self) -> None:
        self._known.clear()

    def known(self, ids: Sequence[int]) -> int:
        """How many tokens of the beginning were read lately."""
        return self._block * sum(1 for _ in takewhile(self._known.__contains__, self._beginnings(ids)))

    def _beginnings(self, ids: Sequence[int]) -> Iterator[int]:
        so_far = 0
        for end in range(self._block, len(ids) + 1, self._block):
            so_far = hash((so_far, *ids[end - self._block : end]))
            yield so_far


class VLLM(Model):
    """vLLM with prefix caching and continuous batching: a request joins those that run as soon as it is submitted.

    A prompt that begins as one read lately goes before the others, while the cache still holds its beginning. New prompts
    wait where those in flight fill most of the cache: they would drive out what a chain's next prompt begins with. On a CPU
    `kv_gib` is the space of the key-value cache; on a GPU vLLM takes `gpu_memory_utilization` of the memory, or what this
    process, which may hold a retriever there and compute with it, leaves of that. At most
    `max_num_seqs` requests run at a time, in steps of at most `max_num_batched_tokens` tokens (null: vLLM's own).
    """

    name = "vllm"
    ends_early = True

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        dtype: str = "auto",
        head_dtype: str | None = None,
        max_model_len: int | None = 4096,
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        kv_gib: int = 2,
        max_num_seqs: int | None = None,
        max_num_batched_tokens: int | None = None,
        window: int = 512,
    ) -> None:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(kv_gib))
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a host name that resolves to nothing hangs gloo
        try:
            from vllm import LLM
        except ImportError as error:
            raise EngineError(
                f"llm=vllm: vLLM cannot be imported ({error}); run: pip install 'uar[vllm]' (GPU) or 'uar[cpu]'"
            ) from error
        on_gpu = device().type == "cuda"
        if not on_gpu:  # processes of its own would compete with the one that computes
            os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        if dtype == "auto" and not on_gpu and not bf16_is_fast():
            dtype = "fp32"
        _make_room_beside_numba()
        self._llm: Any = LLM(
            locate(model),
            revision=revision,
            dtype=DTYPES.get(dtype, dtype),
            hf_overrides={"head_dtype": DTYPES.get(head_dtype, head_dtype)} if head_dtype else None,
            max_model_len=max_model_len,
            tensor_parallel_size=tensor_parallel_size,
            enforce_eager=not on_gpu,
            enable_prefix_caching=True,
            scheduling_policy="priority",
            use_tqdm_on_load=False,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            **({"gpu_memory_utilization": _share_left(gpu_memory_utilization)} if on_gpu else {"block_size": CPU_BLOCK}),
        )
        self._engine: Any = self._llm.llm_engine
        self._tokenizer: Any = self._llm.get_tokenizer()
        config = self._engine.vllm_config
        self.commit = commit_of(model, revision)
        self._longest = int(config.model_config.max_model_len)
        self._block = int(config.cache_config.block_size)
        self._scores_alone = bool(config.use_v2_model_runner)  # the older runner makes a row of logits for each prompt token
        blocks = int(config.cache_config.num_gpu_blocks)
        self._recent = _Recent(self._block, blocks)
        self.window = window
        self._numbers = count()
        self._most_in_flight = int(IN_FLIGHT * blocks * self._block)
        self._in_flight: dict[str, int] = {}  # tokens of the prompts that vLLM has
        self._held: deque[tuple[str, list[int], dict[str, Any]]] = deque()
        self._asked: dict[str, _Asked] = {}
        self._reading: dict[tuple[int, ...], list[_Asked]] = {}  # prefixes that are read, and the scores that wait for them
        self._refused: list[tuple[int, Reply]] = []

    @classmethod
    def gpus(cls, config: Mapping[str, Any]) -> float | None:
        return config.get("tensor_parallel_size") or 1

    def holds(self, request: Generate) -> bool:
        return True

    def submit(self, ticket: int, request: Request) -> None:
        if isinstance(request, Score):
            prefix = prefix_ids(self._tokenizer, request.prefix)
            try:
                target = target_ids(self._tokenizer, request, prefix)
            except CannotScore as error:
                self._refuse(_Asked(ticket, request, prefix), str(error))
                return
            asked = _Asked(ticket, request, prefix + target, target)
        elif isinstance(request, Choose):
            asked = _Asked(ticket, request, chat_ids(self._tokenizer, request), choice_ids(self._tokenizer, request))
        else:
            prompt = chat_ids(self._tokenizer, request)
            asked = _Asked(ticket, request, prompt, ends=early_end(self._tokenizer, request, prompt))
        tokens = request.max_tokens + request.reasoning_tokens if isinstance(request, Generate) else 1
        if len(asked.prompt) + tokens > self._longest:  # vLLM would end the reply at its limit and not say so
            self._refuse(
                asked, f"{len(asked.prompt)} tokens and {tokens} to write are more than max_model_len={self._longest}"
            )
        elif isinstance(request, Score):
            self._read_then_score(asked)
        elif isinstance(request, Choose):
            self._add(asked, logprob_token_ids=asked.target, **ONE_TOKEN)
        else:
            self._add(asked, **_sampling(request))

    def step(self) -> list[tuple[int, Reply]]:
        done: list[tuple[int, Reply]] = []
        while True:
            self._let_in()
            done += self._refused
            self._refused.clear()
            if done or not self._engine.has_unfinished_requests():
                return done
            for output in self._engine.step():
                early = self._early_end(output)
                if not (early or output.finished):
                    continue
                self._recent.add(output.prompt_token_ids)
                self._in_flight.pop(output.request_id, None)
                asked = self._asked.pop(output.request_id, None)
                if asked is None:
                    self._score_after(output)
                elif isinstance(asked.request, Score) and _cached(output) >= len(asked.prompt) - len(asked.target):
                    self._score(asked, skip_reading_prefix_cache=True)  # no row was made for what came from the cache
                else:
                    done.append((asked.ticket, _reply(asked, output, early or outcome_of(output.outputs[0].finish_reason))))

    def _early_end(self, output: Any) -> Outcome | None:
        """Outcome of a text that may end before its model ends it, which is stopped then."""
        asked = self._asked.get(output.request_id)
        if output.finished or asked is None or asked.ends is None:
            return None
        early = asked.ends(list(output.outputs[0].token_ids))
        if early:
            self._engine.abort_request([output.request_id])
        return early

    def reset_prefix_cache(self) -> None:
        """Forget all prompts, as a fresh engine would."""
        self._llm.reset_prefix_cache()
        self._recent.clear()

    def close(self) -> None:
        self._engine.engine_core.shutdown()
        self._llm = self._engine = None

    def _add(self, asked: _Asked, **sampling: Any) -> None:
        number = str(next(self._numbers))
        self._asked[number] = asked
        self._start(number, asked.prompt, sampling)

    def _refuse(self, asked: _Asked, message: str) -> None:
        self._refused.append((asked.ticket, Reply(message, Outcome.ERROR, len(asked.prompt))))

    def _start(self, number: str, prompt: list[int], sampling: dict[str, Any]) -> None:
        """Those whose beginning was read lately go first, and at once; the others when there is room."""
        known = 2 * self._recent.known(prompt) >= len(prompt)
        if known:
            self._hand_over(number, prompt, sampling, priority=0)
        else:
            self._held.append((number, prompt, sampling))

    def _let_in(self) -> None:
        """Hand held requests over, in their order, while the prompts in flight leave room; one at least."""
        room = self._most_in_flight - sum(self._in_flight.values())
        while self._held and (not self._in_flight or len(self._held[0][1]) <= room):
            room -= len(self._held[0][1])
            self._hand_over(*self._held.popleft(), priority=1)

    def _hand_over(self, number: str, prompt: list[int], sampling: dict[str, Any], priority: int) -> None:
        from vllm import SamplingParams
        from vllm.exceptions import VLLMClientError

        wanted = SamplingParams(**{"output_kind": _kind(watched=False), **sampling})
        try:
            self._engine.add_request(number, {"type": "token", "prompt_token_ids": prompt}, wanted, priority=priority)
            self._in_flight[number] = len(prompt)
        except (VLLMClientError, ValueError) as error:
            if number not in self._asked:
                raise
            self._refuse(self._asked.pop(number), str(error))

    def _read_then_score(self, asked: _Asked) -> None:
        """Have the prefix read first where a row of logits would be made for each of its tokens that is not in the cache."""
        rest = len(asked.target) + 1  # the last token of the prefix predicts the first of the target
        prefix = tuple(asked.prompt[: (len(asked.prompt) - rest) // self._block * self._block])
        if self._scores_alone or self._recent.known(prefix) == len(prefix):
            self._score(asked)
        elif prefix in self._reading:
            self._reading[prefix].append(asked)
        else:
            self._reading[prefix] = [asked]
            self._start(f"prefix {next(self._numbers)}", list(prefix), ONE_TOKEN)

    def _score_after(self, output: Any) -> None:
        """The scores that waited for a prefix; the first one pays for it."""
        waiting = self._reading.pop(tuple(output.prompt_token_ids))
        waiting[0].ahead = len(output.prompt_token_ids) - _cached(output)
        for asked in waiting:
            self._score(asked)

    def _score(self, asked: _Asked, skip_reading_prefix_cache: bool = False) -> None:
        wanted: dict[str, Any] = {"prompt_logprobs": 0}
        if self._scores_alone:
            start = len(asked.prompt) - len(asked.target) - 1
            wanted = {"prompt_logprob_token_ids": [[token] for token in asked.target], "prompt_logprob_start": start}
        self._add(asked, skip_reading_prefix_cache=skip_reading_prefix_cache, **wanted, **ONE_TOKEN)


def _sampling(request: Generate) -> dict[str, Any]:
    from vllm.sampling_params import StructuredOutputsParams

    return {
        "max_tokens": request.max_tokens + request.reasoning_tokens,
        "temperature": request.temperature,
        "seed": request.sample if request.temperature else None,
        "output_kind": _kind(watched=request.until is not None),
        "structured_outputs": StructuredOutputsParams(regex=request.pattern) if request.pattern else None,
    }


def _kind(watched: bool) -> Any:
    """Whether a text is shown while it is written, or at its end."""
    from vllm.sampling_params import RequestOutputKind

    return RequestOutputKind.CUMULATIVE if watched else RequestOutputKind.FINAL_ONLY


def _share_left(wanted: float) -> float:
    """Of the GPU's memory; vLLM does not start where less is free than it is told to take. What torch reserved and does not
    use goes first; what it uses, such as a retriever, keeps room to compute in. A process that has not used the GPU is left
    so: vLLM starts others in another way from one that has."""
    if not torch.cuda.is_initialized():
        return wanted
    gc.collect()
    torch.cuda.empty_cache()
    free, total = torch.cuda.mem_get_info()
    spared = COMPUTING if torch.cuda.memory_allocated() else 2  # a hundredth or two for what CUDA itself takes
    left = max(0, math.floor(100 * free / total - spared)) / 100
    if left < wanted:
        log.info("vLLM takes %.2f of the GPU's memory in place of gpu_memory_utilization=%g: the rest is in use", left, wanted)
    return min(wanted, left)


def _make_room_beside_numba() -> None:
    """vLLM looks through the variables of all loaded modules and asks each for its `__dict__`; llvmlite's library, which BM25
    brings with numba, answers that with one of its functions, which has no `get`."""
    library = sys.modules.get("llvmlite.binding.ffi")
    if library is not None:
        library._lib_fn_wrapper.get = lambda *_: None


def _cached(output: Any) -> int:
    return int(output.num_cached_tokens or 0)


def _reply(asked: _Asked, output: Any, outcome: Outcome) -> Reply:
    usage: dict[str, Any] = {
        "tokens_in": len(asked.prompt),
        "tokens_cached": max(0, _cached(output) - asked.ahead),
        "seconds": time.perf_counter() - asked.start,
    }
    best = output.outputs[0]
    if outcome not in {Outcome.OK, Outcome.TRUNCATED}:
        return Reply(f"vLLM gave up ({best.finish_reason})", outcome, **usage)
    if isinstance(asked.request, Generate):
        return Reply(best.text, outcome, tokens_out=len(best.token_ids), **usage)
    if isinstance(asked.request, Choose):
        found = best.logprobs[0]
        return Reply.of_choices(
            {c: found[i].logprob for c, i in zip(asked.request.choices, asked.target, strict=True)}, **usage
        )
    if output.prompt_token_id_logprobs is not None:
        values = [float(row[0]) for row in output.prompt_token_id_logprobs]
    else:
        rows = output.prompt_logprobs[-len(asked.target) :]
        values = [row[i].logprob for row, i in zip(rows, asked.target, strict=True)]
    return Reply.of_score(sum(values), len(asked.target), **usage)
