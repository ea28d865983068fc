"""The `vllm` engine, in this process."""

import os
import time
from typing import Any

from uar.annotation.engines.engine import Engine
from uar.annotation.record import Generate, Outcome, Reply, Request, Score
from uar.errors import EngineError
from uar.models import locate
from uar.precision import bf16_is_fast


class VLLMEngine(Engine):
    """vLLM with prefix caching. `window` requests wait at a time, and vLLM batches them.

    On a CPU `kv_gib` is the space of the key-value cache; on a GPU vLLM takes `gpu_memory_utilization` of the memory.
    """

    name = "vllm"

    def __init__(
        self,
        model: str,
        revision: str | None = None,
        dtype: str = "auto",
        max_model_len: int | None = 4096,
        tensor_parallel_size: int = 1,
        gpu_memory_utilization: float = 0.9,
        kv_gib: int = 2,
        window: int = 512,
    ) -> None:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(kv_gib))
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # a host name that resolves to nothing hangs gloo
        try:
            import torch
            from vllm import LLM
        except ImportError as error:
            raise EngineError(
                f"llm=vllm: vLLM cannot be imported ({error}); run: pip install 'uar[vllm]' (GPU) or 'uar[cpu]'"
            ) from error
        on_gpu = torch.cuda.is_available()
        if dtype == "auto" and not on_gpu and not bf16_is_fast():
            dtype = "fp32"
        names = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
        placed = {"gpu_memory_utilization": gpu_memory_utilization} if on_gpu else {}
        self._llm: Any = LLM(
            locate(model),
            revision=revision,
            dtype=names.get(dtype, dtype),
            max_model_len=max_model_len,
            tensor_parallel_size=tensor_parallel_size,
            enforce_eager=not on_gpu,
            enable_prefix_caching=True,
            **placed,
        )
        self._tokenizer: Any = self._llm.get_tokenizer()
        self._longest = int(self._llm.llm_engine.model_config.max_model_len)
        self.window = window
        self._waiting: list[tuple[int, Request]] = []

    def submit(self, ticket: int, request: Request) -> None:
        self._waiting.append((ticket, request))

    def step(self) -> list[tuple[int, Reply]]:
        from vllm import SamplingParams

        start = time.perf_counter()
        waiting, self._waiting = self._waiting, []
        fitting: list[tuple[int, Request]] = []
        replies: list[tuple[int, Reply]] = []
        prompts: list[dict[str, list[int]]] = []
        sampling: list[Any] = []
        for ticket, request in waiting:
            if isinstance(request, Score):
                prompt = self._ids(request.prefix) + self._ids(request.target)
                wanted = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
            else:
                prompt = self._chat(request)
                wanted = SamplingParams(max_tokens=request.max_tokens, temperature=request.temperature)
            if len(prompt) + wanted.max_tokens > self._longest:  # vLLM would refuse the whole batch
                told = f"{len(prompt)} tokens and {wanted.max_tokens} to write are more than max_model_len={self._longest}"
                replies.append((ticket, Reply(told, Outcome.ERROR, len(prompt))))
                continue
            fitting.append((ticket, request))
            prompts.append({"prompt_token_ids": prompt})
            sampling.append(wanted)
        outputs = self._llm.generate(prompts, sampling, use_tqdm=False) if prompts else []
        seconds = (time.perf_counter() - start) / max(1, len(fitting))
        return replies + [(t, self._reply(r, o, seconds)) for (t, r), o in zip(fitting, outputs, strict=True)]

    def close(self) -> None:
        self._llm = None

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _chat(self, request: Generate) -> list[int]:
        return list(self._tokenizer.apply_chat_template(request.chat(), add_generation_prompt=True, return_dict=False))

    def _reply(self, request: Request, output: Any, seconds: float) -> Reply:
        usage: dict[str, Any] = {
            "tokens_in": len(output.prompt_token_ids),
            "tokens_cached": output.num_cached_tokens or 0,
            "seconds": seconds,
        }
        if isinstance(request, Score):
            ids = self._ids(request.target)
            tail = output.prompt_logprobs[-len(ids) :]
            return Reply.of_score(sum(at[i].logprob for at, i in zip(tail, ids, strict=True)), len(ids), **usage)
        best = output.outputs[0]
        outcome = Outcome.TRUNCATED if best.finish_reason == "length" else Outcome.OK
        return Reply(best.text, outcome, tokens_out=len(best.token_ids), **usage)
