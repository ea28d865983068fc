"""Which number format the hardware computes fast."""

import torch

from uar.errors import UserError

NAMES = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp16": torch.float16}


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def bf16_is_fast(on: str | None = None) -> bool:
    """True on GPUs from Ampere on and on CPUs with AVX-512 BF16 or AMX; elsewhere a bf16 product is emulated and
    some hundred times slower than fp32. `on`: cpu or cuda; None for the GPU where there is one."""
    if (on or device().type) == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported())


def resolve_dtype(name: str) -> torch.dtype:
    """`auto` as the fastest safe type, else the named one; UserError for another name."""
    if name == "auto":
        return torch.bfloat16 if bf16_is_fast() else torch.float32
    if name not in NAMES:
        raise UserError(f"precision {name!r} is not known; allowed: auto, {', '.join(NAMES)}")
    return NAMES[name]
