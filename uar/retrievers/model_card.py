"""The model card of an exported retriever, from what its run knows, and its way to a hub."""

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from uar.collections.reference import parse, slug
from uar.errors import UserError
from uar.retrievers.kind import Kind
from uar.retrievers.transformer.published_files import DIMENSIONS, SETTINGS
from uar.storage.files import read_json, write_text

NOT_TRAINED = """Those from before training: dev nDCG@10 was {:.4f} then and {:.4f} after it. Labels and training
below are of what was not kept."""


def write_model_card(folder: Path, facts: Mapping[str, Any]) -> None:
    """`README.md` of an exported model. A fact that is missing or None is left out.

    facts: `collection` (reference) and `collection_hash`; `labels` (mappings of stage, source, positives) and `label_hash`;
    `loss` (a name or one a stage); `given_kept`, the dev scores before and after a training whose weights were not kept;
    `retriever`, its `kind`, and `own_kind`, whether a file of a folder of one's own configs alone names that;
    `metrics` (as in metrics.json) and `reranked`, what they are of where runs were re-ranked; `git_commit`; `license`, of the
    model, and `data_license`; `base_model` and `datasets`, ids on the hub; `repo`, the id of this model there.
    """
    known = {name: value for name, value in facts.items() if value not in (None, "", [], {})}
    front = yaml.safe_dump(_front_matter(known), sort_keys=False, allow_unicode=True)
    title = known.get("repo", known["kind"].name.capitalize())
    sections = [
        ("Weights", NOT_TRAINED.format(*known["given_kept"]) if "given_kept" in known else ""),
        ("Data", _data(known)),
        ("Labels", _labels(known)),
        ("Training", _training(known)),
        ("Scores", _scores(known.get("metrics", {}).get("retrieval", {}), known.get("reranked"))),
        ("How to use", _use(folder, known)),
    ]
    parts = [f"---\n{front}---", f"# {title}", *(f"## {name}\n\n{text}" for name, text in sections if text)]
    write_text(folder / "README.md", "\n\n".join(parts) + "\n")


def push(folder: Path, repo_id: str, private: bool) -> str:
    """Upload the folder to the repository, made where it is missing; returns its address. UserError where that fails: the
    folder stays, and the error names the command for later."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import OfflineModeIsEnabled

    try:
        api = HfApi()
        made = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=made.repo_id, folder_path=folder, commit_message="Upload model")
        return str(made)
    except Exception as error:  # which HTTP library raises depends on the version of huggingface_hub
        answer = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, OfflineModeIsEnabled):
            why = "HF_HUB_OFFLINE is set"
        elif answer == 401:
            why = "no valid token: run `hf auth login` or set HF_TOKEN"
        else:
            why = " ".join(str(error).split())[:200] or type(error).__name__
        command = shlex.join(["hf", "upload", repo_id, str(folder), ".", *(["--private"] if private else [])])
        raise UserError(f"hub.repo={repo_id}: not pushed ({why}); the model is kept, push it later with: {command}") from error


def _front_matter(facts: Mapping[str, Any]) -> dict[str, Any]:
    name = str(facts.get("retriever", "")).partition("@")[0]
    base = facts.get("base_model") or (name if "/" in name else None)  # a hub id has an owner, a folder's name has none
    given = {"license": facts.get("license"), "base_model": base, "datasets": facts.get("datasets")}
    kind: Kind = facts["kind"]
    library = "sentence-transformers" if kind.loads_as else None
    own = {"library_name": library, "pipeline_tag": kind.task, "tags": [*([library] if library else []), *kind.tags, "uar"]}
    return {key: value for key, value in {**own, **given}.items() if value}


def _data(facts: Mapping[str, Any]) -> str:
    named = {
        "Collection": _code(_shown(facts["collection"])) if "collection" in facts else None,
        "Content hash": _code(facts.get("collection_hash")),
        "Licence of the data": facts.get("data_license"),
    }
    return _items(named)


def _shown(reference: str) -> str:
    """A reference without the place of a local folder."""
    kind, _, split = parse(reference)
    return f"local:{slug(reference).removesuffix(f'.{split}')}:{split}" if kind == "local" else reference


def _labels(facts: Mapping[str, Any]) -> str:
    rows = facts.get("labels", [])
    columns = [c for c in ("stage", "source", "positives") if any(c in row for row in rows)]
    table = _table([c.capitalize() for c in columns], [[row.get(c, "") for c in columns] for row in rows]) if rows else ""
    return "\n\n".join(part for part in (table, _items({"Content hash": _code(facts.get("label_hash"))})) if part)


def _training(facts: Mapping[str, Any]) -> str:
    losses = facts.get("loss", [])
    losses = [losses] if isinstance(losses, str) else list(dict.fromkeys(losses))
    return _items(
        {
            "Starting from": _code(facts.get("retriever")),
            "Loss": ", ".join(map(_code, losses)),
            "Commit of the code": _code(facts.get("git_commit")),
        }
    )


def _scores(retrieval: Mapping[str, Mapping[str, float]], reranked: str | None) -> str:
    measures = list(dict.fromkeys(m for values in retrieval.values() for m in values))
    rows = [[name, *(f"{v[m]:.4f}" if v.get(m) is not None else "" for m in measures)] for name, v in retrieval.items()]
    if not measures:
        return ""
    note = f"Not of this model alone, but of {_code(reranked)}.\n\n" if reranked else ""
    return note + _table(["Collection", *measures], rows)


def _use(folder: Path, facts: Mapping[str, Any]) -> str:
    settings = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    prompts = {n: p for n, p in (settings.get("prompts") or {}).items() if p}
    short = ", ".join(map(str, settings.get(DIMENSIONS, ())))
    shorter = f"The first {short} numbers of a vector were trained to do alone: `truncate_dim=N`.\n\n" if short else ""
    prefixes = "".join(f"A {role} begins with {_code(repr(p))}, which these calls add.\n\n" for role, p in prompts.items())
    model = facts.get("repo", "MODEL")
    where = "" if "repo" in facts else "`MODEL` is this folder, or the id of this model on the hub. "
    kind: Kind = facts["kind"]
    example = kind.example.format(model=model, kind=kind.loads_as)
    flag, own = (
        ("--config-dir DIR ", " (`DIR`: the folder of configs that names this kind)") if facts.get("own_kind") else ("", "")
    )
    python = f"With sentence-transformers:\n\n```python\n{example}\n```\n\n" if kind.loads_as else ""
    return f"""{where}{python}{prefixes}{shorter}With uar, which scores it on a collection{own}:

```sh
python -m uar.evaluate {flag}model={model} 'collections=[mini:test]'
```"""


def _code(value: Any) -> str:
    return f"`{value}`" if value else ""


def _items(named: Mapping[str, Any]) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in named.items() if value)


def _table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    lines = [list(header), *(list(row) for row in rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
