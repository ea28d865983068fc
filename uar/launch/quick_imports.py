"""A quicker start: large libraries that others import when they find them, and that nothing here uses, are left out."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

UNUSED = {  # what torchmetrics and transformers look for in each, on being imported
    "scipy.signal": {"hamming": None},
    "sklearn.metrics": {"roc_curve": None},  # for assisted generation
}


@contextmanager
def without_unused() -> Iterator[None]:
    """While the block imports, these are empty modules, unless they were imported before; after it they can be imported."""
    empty = {}
    for name, attributes in UNUSED.items():
        if name not in sys.modules:
            empty[name] = sys.modules[name] = ModuleType(name)
            vars(empty[name]).update(attributes)
    try:
        yield
    finally:
        for name, module in empty.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]
