"""Which number format the hardware computes fast."""

import os

import torch

from uar.errors import UserError

NAMES = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp16": torch.float16}
EMULATING = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")  # oneDNN's names


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bf16_is_fast(on: str | None = None) -> bool:
    """True on GPUs from Ampere on and on CPUs with AVX-512 BF16 or AMX; elsewhere a bf16 product is emulated and
    many times slower than fp32. ONEDNN_MAX_CPU_ISA is followed. `on`: cpu or cuda; None for the GPU where there is one."""
    if (on or device().type) == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in EMULATING:
        return False
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported())


def name_of(dtype: torch.dtype) -> str:
    """As options name it, such as bf16."""
    return next(name for name, known in NAMES.items() if known == dtype)


def resolve_dtype(name: str) -> torch.dtype:
    """`auto` as the fastest safe type, else the named one; UserError for another name."""
    if name == "auto":
        return torch.bfloat16 if bf16_is_fast() else torch.float32
    if name not in NAMES:
        raise UserError(f"precision {name!r} is not known; allowed: auto, {', '.join(NAMES)}")
    return NAMES[name]
