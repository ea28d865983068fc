"""The report's table of what each row's search says of itself."""

import json
from pathlib import Path

from written_runs import rows_in, write_run

from uar.reporting.result_table import search_table

SCORE = {"a.test": {"nDCG@10": 0.5}}


def test_speed_size_and_misses_of_searches_stand_in_one_table(tmp_path: Path):
    told = {
        "dense": {"questions_per_second": 100.26, "bytes_per_passage": 768},
        "index": {"questions_per_second": 400.0, "bytes_per_passage": 96, "recall@10": 0.9375},
        "fused": {"questions_per_second": 80.0, "weight of dense": 0.65},
        "old": {},
    }
    for name, facts in told.items():
        run = write_run(tmp_path / name, SCORE, loss=name)
        (run / "manifest.json").write_text(json.dumps({"search": {"a.test": facts}} if facts else {}))
    rows = rows_in(tmp_path)
    table = search_table(rows)
    assert table is not None
    heads = [column.heading for column in table.columns]
    assert sorted(heads) == ["bytes per passage", "questions per second", "recall@10", "weight of dense"]
    cells = {line.name: dict(zip(heads, line.cells, strict=True)) for line in table.lines}
    assert "old" not in cells
    shown = {
        name: of["questions per second"].number(table.columns[heads.index("questions per second")])
        for name, of in cells.items()
    }
    assert shown == {"dense": "100.3", "index": "400.0", "fused": "80.0"}
    assert (
        cells["index"]["questions per second"].place == cells["index"]["bytes per passage"].place == 1
    )  # fewer bytes are better
    assert cells["index"]["recall@10"].value == 0.9375 and cells["fused"]["weight of dense"].place == 0
    assert search_table([row for row in rows if row.name == "old"]) is None
