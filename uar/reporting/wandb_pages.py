"""The W&B workspace and report as code. They are built and written with no key and no network; saving them needs both."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from uar.errors import UserError
from uar.reporting.wandb_panels import STEP, Panels
from uar.storage.files import write_text

WIDTH, HEIGHT, COLUMNS = 8, 6, 3  # of a panel, in the grid's units; panels side by side


def workspace(project: str, entity: str, title: str, group_by: str, sections: Sequence[Panels]) -> Any:
    """A saved view of a project: a section of panels each, runs grouped."""
    wr, ws = _modules()
    return ws.Workspace(
        entity=entity,
        project=project,
        name=title,
        sections=[
            ws.Section(name=s.title, panels=_panels(wr, s, group_by), is_open=True)
            for s in sections
            if _panels(wr, s, group_by)
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP),
        runset_settings=ws.RunsetSettings(groupby=[ws.Metric("Group") if group_by == "Group" else ws.Config(group_by)]),
    )


def report(project: str, entity: str, title: str, group_by: str, sections: Sequence[Panels]) -> Any:
    """A page of text and panels over all runs of the project."""
    wr, _ = _modules()
    blocks = [wr.TableOfContents()]
    for section in sections:
        panels = _panels(wr, section, group_by)
        if panels:
            blocks += [wr.H1(section.title), wr.P(section.text)]
            blocks.append(wr.PanelGrid(runsets=[wr.Runset(name="runs")], panels=panels))
    description = "Labels an LLM wrote, the retrievers trained on them, and what they bring."
    return wr.Report(project=project, entity=entity, title=title, description=description, blocks=blocks, width="fluid")


def write_specs(out: Path, workspace: Any, report: Any) -> None:
    """`workspace.json` and `report.json`: what would be saved."""
    for name, page in (("workspace", workspace), ("report", report)):
        message = page._to_model().model_dump_json(by_alias=True, exclude_none=True)
        write_text(out / f"{name}.json", json.dumps(json.loads(message), indent=1, ensure_ascii=False) + "\n")


def save(*pages: Any) -> list[str]:
    """Put pages into their project; their addresses. UserError where W&B refuses, or no key is there."""
    import wandb

    try:
        return [str(page.save().url) for page in pages]
    except Exception as error:  # the package raises bare ones of many kinds
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        where = wandb.Settings().base_url
        raise UserError(f"save=true: {where} refused ({message}); check WANDB_API_KEY, entity and project") from error


def _panels(wr: Any, section: Panels, group_by: str) -> list[Any]:
    group = group_by if group_by == "Group" else wr.Config(group_by)
    made = [
        wr.BarPlot(title=name, metrics=[name], groupby=group, groupby_aggfunc="mean", groupby_rangefunc="stddev")
        for name in section.bars
    ]
    made += [
        wr.LinePlot(title=title, x=STEP, metric_regex=pattern, smoothing_type="none")
        for title, pattern in (section.curves or {}).items()
    ]
    made += [wr.WeavePanelSummaryTable(table_name=name) for name in section.tables]
    for at, panel in enumerate(made):
        row, column = divmod(at, COLUMNS)
        panel.layout = wr.Layout(x=column * WIDTH, y=row * HEIGHT, w=WIDTH, h=HEIGHT)
    return made


def _modules() -> tuple[Any, Any]:
    try:
        import wandb_workspaces.reports.v2 as wr
        import wandb_workspaces.workspaces as ws
    except ImportError as error:
        raise UserError("wandb-workspaces is not installed; pip install 'uar[wandb]'") from error
    return wr, ws
