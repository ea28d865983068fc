"""What earlier parts of a W&B run hold. Each part of an offline run is a file of its own, and `wandb sync` sends them all."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32_768  # bytes
HEADER = 7  # bytes, of the file and of each piece of a record: checksum, length and kind
WHOLE, LAST = 1, 4  # kinds of pieces that end a record


def records(path: Path) -> Iterator[Any]:
    """The protocol buffers of a `.wandb` file, a LevelDB log; they end where a killed process left off."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, pieces = path.read_bytes(), HEADER, b""
    while at + HEADER <= len(data):
        left = BLOCK - at % BLOCK
        if left < HEADER:  # zeros, where no header fits
            at += left
            continue
        size, kind = struct.unpack("<HB", data[at + 4 : at + HEADER])
        if at + HEADER + size > len(data):
            return
        pieces += data[at + HEADER : at + HEADER + size]
        at += HEADER + size
        if kind in (WHOLE, LAST):
            record = Record()
            record.ParseFromString(pieces)
            pieces = b""
            yield record


def steps_kept(folder: Path, run_id: str) -> int:
    """Steps of the history, from 0 on, that the offline parts of a run in its folder hold."""
    steps = 0
    for path in folder.glob(f"wandb/offline-run-*-{run_id}/*.wandb"):
        for record in records(path):
            if record.WhichOneof("record_type") == "history":
                steps = max(steps, record.history.step.num + 1)
    return steps


class Journal:
    """Rows of a training's history as they were logged. W&B holds rows back, and a process that is killed loses them."""

    def __init__(self, path: Path, resume: bool) -> None:
        self._path = path
        if not resume:
            path.unlink(missing_ok=True)

    def add(self, row: dict[str, Any], step: int) -> None:
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, "row": row}) + "\n")

    def rows(self, first: int, stop: int) -> list[tuple[int, dict[str, Any]]]:
        """(step, row) of the steps from `first` to before `stop`, the newest row a step and metric."""
        if not self._path.is_file():
            return []
        found: dict[int, dict[str, Any]] = {}
        for line in self._path.read_text().splitlines():
            if line.endswith("}"):  # the last one may be cut
                entry = json.loads(line)
                found.setdefault(entry["step"], {}).update(entry["row"])
        return [(step, row) for step, row in sorted(found.items()) if first <= step < stop]

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
