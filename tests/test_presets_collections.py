"""Presets of collections, and ir_datasets' own readers on files put where it looks for them."""

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import MEASURES, metrics, ok

from uar.collections.presets import averaged, expand, settings_of
from uar.collections.reference import slug

PARTS = expand("beir-cqadupstack")


def test_beir_is_its_fourteen_public_sets_of_which_one_has_twelve_parts():
    found = expand("beir")
    assert len(found) == 13 + 12 and len(PARTS) == 12 and set(PARTS) <= set(found)
    assert {r.split("/")[1] for r in found} == {
        *("trec-covid", "nfcorpus", "nq", "hotpotqa", "fiqa", "arguana", "webis-touche2020", "cqadupstack"),
        *("quora", "dbpedia-entity", "scidocs", "fever", "climate-fever", "scifact"),
    }
    assert len({slug(r) for r in found}) == 25


def test_lists_mix_presets_references_and_splits_and_hold_each_once():
    assert expand("msmarco") == [
        "irds:msmarco-passage/dev/small",
        "irds:msmarco-passage/trec-dl-2019/judged",
        "irds:msmarco-passage/trec-dl-2020/judged",
    ]
    assert expand(["beir-scifact", "mini:test", "dev", "irds:beir/scifact/test", "msmarco-dl19"]) == [
        *("irds:beir/scifact/test", "mini:test", "dev", "irds:msmarco-passage/trec-dl-2019/judged"),
    ]
    assert expand([]) == []


def test_settings_go_with_the_id():
    assert [settings_of(i) for i in ("beir/arguana", "beir/quora/test", "beir/nq")] == [{"drop_own": True}] * 2 + [{}]
    assert settings_of("msmarco-passage/trec-dl-2020/judged") == {"positive_grade": 2}
    assert settings_of("msmarco-passage/dev/small") == {}


def test_a_name_of_no_preset_is_told_where_presets_are_allowed(fails: Callable[..., str]):
    told = fails("uar.evaluate", "retriever=bm25", "collections=[beir-scifat]")
    assert "'beir-scifat' is not understood" in told and "beir, msmarco and beir-scifact" in told


def test_the_parts_of_cqadupstack_become_one_row_in_their_place():
    parts = {slug(r): {"nDCG@10": at / 10, "AP": 0.5} | ({"RR@10": 1.0} if at else {}) for at, r in enumerate(PARTS)}
    scores = {"beir-nq": {"nDCG@10": 0.4}, **parts, "mini.test": {"nDCG@10": 1.0}}
    found = averaged(scores)
    assert list(found) == ["beir-nq", "beir-cqadupstack", "mini.test"]
    assert found["beir-cqadupstack"] == pytest.approx({"nDCG@10": 0.55, "AP": 0.5})
    missing = {name: values for name, values in scores.items() if name != "beir-cqadupstack-tex"}
    assert averaged(missing) == missing


DOC = {"_id": "d1", "title": "A title", "text": "the heart pumps blood"}
EXTRA = {
    **dict.fromkeys(("url", "pubmed_id", "stance", "query", "narrative", "description"), "x"),
    **{"authors": [], "year": 1, "cited_by": [], "references": [], "tags": []},
}


def beir_zip(path: Path, *folders: str, split: str = "test") -> None:
    """A source.zip of BEIR's own layout; the question has the id of one of the passages."""
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as file:
        for folder in folders:
            docs = [DOC, {"_id": "q1", "title": "", "text": "what pumps blood through the heart"}]
            lines = [json.dumps(d | {"metadata": EXTRA}) for d in docs]
            file.writestr(f"{folder}/corpus.jsonl", "\n".join(lines) + "\n")
            question = {"_id": "q1", "text": "what pumps blood", "metadata": EXTRA}
            file.writestr(f"{folder}/queries.jsonl", json.dumps(question) + "\n")
            file.writestr(f"{folder}/qrels/{split}.tsv", "query-id\tcorpus-id\tscore\nq1\td1\t1\n")


def all_of_beir(home: Path) -> None:
    for reference in expand("beir"):
        name = reference.removeprefix("irds:beir/").removesuffix("/test")
        if not name.startswith("cqadupstack"):
            beir_zip(home / "beir" / name / "source.zip", name.removesuffix("/v2"))
    beir_zip(home / "beir" / "cqadupstack" / "source.zip", *(r.removeprefix("irds:beir/") for r in PARTS))


def all_of_msmarco(home: Path) -> None:
    place = home / "msmarco-passage"
    for year in (2019, 2020):
        (place / f"trec-dl-{year}").mkdir(parents=True)
        (place / f"trec-dl-{year}" / "qrels").write_text("7 0 0 2\n7 0 1 1\n")
    (place / "trec-dl-2020" / "queries.tsv.gz").write_bytes(gzip.compress(b"7\twhat pumps blood\n8\tnot judged\n"))
    (place / "trec-dl-2019" / "queries.tsv").write_bytes(b"7\twhat pumps blood\n8\tnot judged\n")
    members = {
        "collection.tsv": b"0\tthe heart pumps blood\n1\tbees make honey\n",
        "queries.dev.small.tsv": b"5\twhat do bees make\n",
        "qrels.dev.small.tsv": b"5\t0\t1\t1\n",
    }
    with tarfile.open(place / "collectionandqueries.tar.gz", "w:gz") as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))


def offline(home: Path) -> dict[str, str]:
    """A home of ir_datasets, a cache of its own, and a network that refuses every connection."""
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return {"IR_DATASETS_HOME": str(home), "IR_DATASETS_DL_TRIES": "1", "UAR_CACHE": str(home / "cache"), **nowhere}


OPEN = """
import json, sys
from uar.collections import open_collection
from uar.collections.presets import expand
from uar.launch.entry import one_line
for reference in expand(sys.argv[1:]):
    try:
        c = open_collection(reference)
        row = [c.slug, len(c.corpus), list(c.queries), c.qrels, c.drop_own, c.positive_grade]
    except Exception as error:
        row = one_line(error)
    print(json.dumps(row))
"""


def opened(home: Path, *references: str) -> list:
    """A list of what a collection holds, or a line of error, for each reference."""
    command = [sys.executable, "-c", OPEN, *references]
    done = subprocess.run(command, env=os.environ | offline(home), capture_output=True, text=True, check=False)
    ok(done)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_preset_opens_with_its_settings_from_files_put_in_place(tmp_path: Path):
    all_of_beir(tmp_path)
    all_of_msmarco(tmp_path)
    rows = opened(tmp_path, "beir", "msmarco")
    assert [row[0] for row in rows] == [slug(r) for r in expand(["beir", "msmarco"])]
    assert all(row[1:4] == [2, ["q1"], {"q1": {"d1": 1}}] for row in rows[:25])
    assert {row[0] for row in rows if row[4]} == {"beir-arguana", "beir-quora-test"}
    dev, *dl = rows[25:]
    assert dev[1:] == [2, ["5"], {"5": {"1": 1}}, False, 1]
    assert all(row[1:] == [2, ["7"], {"7": {"0": 2, "1": 1}}, False, 2] for row in dl)


def test_a_question_is_not_its_own_result_where_arguana_is_evaluated(
    tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]]
):
    home = tmp_path / "home"
    beir_zip(home / "beir" / "arguana" / "source.zip", "arguana")
    given = ["retriever=bm25", "collections=[irds:beir/arguana]", "hydra.run.dir=run"]
    told = ok(command("uar.evaluate", *given, **offline(home)))
    assert "irds:beir/arguana: the own document of 1 queries is left out of their results" in told
    assert metrics(tmp_path / "run")["retrieval"]["beir-arguana"] == dict.fromkeys(MEASURES, 1.0)


def test_without_network_the_error_names_every_file_and_its_place(tmp_path: Path):
    broken = tmp_path / "beir" / "nfcorpus" / "source.zip"
    broken.parent.mkdir(parents=True)
    broken.write_text("<html>not found</html>")
    scifact, dl20, nfcorpus = opened(tmp_path, "beir-scifact", "msmarco-dl20", "beir-nfcorpus")
    assert scifact.startswith(
        "irds:beir/scifact/test: ir_datasets could not read or download it (ProxyError); with no network"
    )
    assert scifact.endswith(f"/BEIR/datasets/scifact.zip as {tmp_path}/beir/scifact/source.zip")
    for name in ("collectionandqueries.tar.gz", "trec-dl-2020/queries.tsv.gz", "trec-dl-2020/qrels"):
        assert f" as {tmp_path}/msmarco-passage/{name}" in dl20
    assert nfcorpus == (
        "irds:beir/nfcorpus/test: ir_datasets could not read it (File is not a zip file); "
        f"see whether {broken} is whole, or put it there anew"
    )
