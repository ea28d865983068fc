"""`python -m uar.dashboard project=uar entity=NAME`: the W&B workspace and report of a project, built from code."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from uar.errors import UserError
from uar.launch.entry import entry
from uar.launch.value_kinds import one_or_several
from uar.reporting.run_folders import find_runs
from uar.reporting.wandb_pages import report, save, workspace, write_specs
from uar.reporting.wandb_panels import panels_of

log = logging.getLogger(__name__)


def dashboard(cfg: DictConfig, folder: Path) -> list[str]:
    """Write `workspace.json` and `report.json` to `out`; with `save` put both into the project and return their addresses."""
    found = find_runs(one_or_several("runs", cfg.runs))
    log.info("%d run folders", len(found.runs))
    sections = panels_of(found.runs)
    entity = cfg.entity or (_own_entity() if cfg.save else "")
    view, page = (make(cfg.project, entity, cfg.title, cfg.group_by, sections) for make in (workspace, report))
    write_specs(Path(cfg.out), view, page)
    if not cfg.save:
        log.info("%s: workspace.json and report.json; save=true puts them into W&B", cfg.out)
        return []
    addresses = save(view, page)
    log.info("Saved: %s", ", ".join(addresses))
    return addresses


def _own_entity() -> str:
    import wandb

    from uar.tracking.wandb_run import has_key

    if not has_key():
        raise UserError("save=true: no key of W&B is there; set WANDB_API_KEY or run wandb login, or leave save=false")
    return str(wandb.Api().default_entity)


def main() -> None:
    entry("dashboard", dashboard)


if __name__ == "__main__":
    main()
