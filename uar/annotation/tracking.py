"""Costs and quality of annotation in the run's loggers: scalars everywhere, figures and a table in W&B."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from uar.annotation.quality.disagreements import worst_disagreements
from uar.annotation.stages import Judged
from uar.collections import Collection


def track(
    cfg: DictConfig,
    folder: Path,
    spent: Mapping[str, Any],
    found: Mapping[str, Any] | None,
    collection: Collection,
    judged: Judged,
) -> None:
    """Log to what `logger` names; nothing is imported where that is nothing."""
    if not cfg.logger:
        return
    from lightning.pytorch.loggers import WandbLogger

    from uar.training.loggers import finish, open_loggers

    loggers = open_loggers(cfg)
    try:
        scalars = dict(_scalars("ledger", spent)) | dict(_scalars("agreement", found or {}))
        for logger in loggers:
            logger.log_metrics(scalars)
            if isinstance(logger, WandbLogger):
                figures = sorted(folder.glob("*.png"))
                for figure in figures:
                    logger.log_image(f"agreement/{figure.stem}", [str(figure)])
                rows = worst_disagreements(collection, judged)
                if rows:
                    logger.log_table("disagreements", columns=list(rows[0]._fields), data=[list(row) for row in rows])
    finally:
        finish(loggers)


def _scalars(prefix: str, values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _scalars(f"{prefix}/{name}", value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}/{name}", float(value)
