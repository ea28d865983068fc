"""The environment of processes at the moment when they import a module, whoever starts them."""

import json
import os
from pathlib import Path

SPY = """
import importlib.machinery, json, os, sys

class Spy:
    def find_spec(self, name, path=None, target=None):
        if name != os.environ.get("SPY_MODULE"):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module
        spec.loader.exec_module = lambda module: (record(), load(module))
        return spec

def record():
    with open(os.path.join(os.environ["SPY_FOLDER"], f"{os.getpid()}.json"), "w") as file:
        json.dump(dict(os.environ), file)
    if os.environ["SPY_STOP"] == "1":
        raise ImportError("seen")

sys.meta_path.insert(0, Spy())
"""


def spied(folder: Path, module: str, stop: bool = False) -> dict[str, str]:
    """The environment for a command whose processes leave theirs in `folder`. `stop`: whether the import then fails."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SPY)
    search = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": search, "SPY_MODULE": module, "SPY_FOLDER": str(folder), "SPY_STOP": str(int(stop))}


def records(folder: Path) -> list[dict[str, str]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
