"""The report's table of what calls besides those of labels cost."""

import json
from pathlib import Path

from written_runs import rows_in, write_run

from uar.reporting.asked_table import asked_table


def test_costs_of_re_ranking_and_answers_stand_in_the_report(tmp_path: Path):
    score = {"a.test": {"nDCG@10": 0.5}}
    asked = {"calls": 12, "calls_answered_by_store": 3, "tokens_in": 900, "seconds": 4.0, "cost": 0.25, "model": "x"}
    run = write_run(tmp_path / "asks", score, loss="a")
    (run / "rerank_ledger.json").write_text(json.dumps(asked))
    of_rag = {s: {"answers": {"calls": n, "cost": None}, "judges": {"calls": 1, "cost": 2.0}} for s, n in (("a", 4), ("b", 5))}
    (run / "rag_ledger.json").write_text(json.dumps(of_rag))
    broken = write_run(tmp_path / "broken", score, loss="b")
    (broken / "rerank_ledger.json").write_text("{")
    rows = rows_in(tmp_path)
    table = asked_table(rows)
    assert table is not None
    (line,) = table.lines
    shown = {(c.group, c.heading): c.number(cell.value or 0) for c, cell in zip(table.columns, line.cells, strict=True)}
    assert shown == {
        ("RAG answers", "calls"): "9", ("RAG judges", "calls"): "2", ("RAG judges", "cost"): "4.00",
        ("re-ranking", "calls"): "12", ("re-ranking", "from the store"): "3", ("re-ranking", "tokens read"): "900",
        ("re-ranking", "seconds"): "4.0", ("re-ranking", "cost"): "0.25",
    }  # fmt: skip
    assert line.name == next(row.name for row in rows if row.config["loss"] == "a")
    assert asked_table([row for row in rows if row.config["loss"] == "b"]) is None
