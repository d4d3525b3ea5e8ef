"""The panels of a study's wandb workspace; importing this module needs the extra `dashboard`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from wandb_workspaces import workspaces as ws
from wandb_workspaces.reports import v2 as wr
from wandb_workspaces.reports.v2.interface import Panel

from robust_arch.tracking.columns import ARCH, RESOURCES, last_share_column, stage_column

_LABELS = {"params": "parameters", "macs": "multiply-accumulates"}
_MOST_LINES = 100  # per panel; the default of wandb is 10
_CURVES = {
    "Held-out accuracy under the selection attack": "val_robust_acc",
    "Held-out clean accuracy": "val_clean_acc",
    "Training loss": "train_loss",
    "Training accuracy": "train_acc",
}


@dataclass(frozen=True)
class Shown:
    """What the panels show of a study.

    Attributes:
        name: of the study.
        runs: columns of the configuration to the value that the comparable runs share.
        clean: column of clean accuracy in the summary.
        worst: column of worst-case accuracy in the summary.
        numbers: further columns of the summary, for the table of runs.
        stages: number of stages that every architecture has; 0 for networks of the user's own.
    """

    name: str
    runs: Mapping[str, str | int]
    clean: str
    worst: str
    numbers: tuple[str, ...]
    stages: int


def workspace(shown: Shown, entity: str, project: str) -> ws.Workspace:
    """The page of one study, over its comparable runs."""
    sections = {
        "Accuracy against cost": _pareto(shown),
        "The last stage's share": _last_share(shown),
        **({"Stage by stage": _stages(shown)} if shown.stages else {}),
        "Architectures": _architectures(shown),
        "Curves": _curves(),
    }
    return ws.Workspace(
        entity=entity,
        project=project,
        name=re.sub(r"[^\w .-]", "-", f"robust-arch {shown.name}"),  # wandb refuses other characters
        sections=[_section(name, panels) for name, panels in sections.items()],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=_MOST_LINES),
        runset_settings=ws.RunsetSettings(
            filters=ws.And(*_filters(shown)),
            order=[ws.Ordering(ws.Summary(shown.worst), ascending=False)],
            pinned_columns=_table(shown),
        ),
    )


def _section(name: str, panels: list[Panel]) -> ws.Section:
    return ws.Section(
        name=name,
        panels=panels,
        is_open=True,
        layout_settings=ws.SectionLayoutSettings(columns=2, rows=-(-len(panels) // 2)),
        panel_settings=ws.SectionPanelSettings(x_axis="epoch"),
    )


def _filters(shown: Shown) -> list[ws.FilterExpr]:
    return [ws.Metric("Group") == shown.name, *(ws.Config(name) == value for name, value in shown.runs.items())]


def _table(shown: Shown) -> list[str]:
    config = (*RESOURCES, last_share_column("params"), last_share_column("macs"))
    summary = (shown.worst, shown.clean, *shown.numbers)
    return ["run:displayName", *(f"summary:{name}" for name in summary), *(f"config:{name}.value" for name in config)]


def _pareto(shown: Shown) -> list[Panel]:
    # the running maximum from left to right is the Pareto front of low cost and high accuracy
    return [
        wr.ScatterPlot(
            title=f"Worst-case accuracy against {_LABELS[resource]}, coloured by the last stage's share",
            x=wr.Config(resource),
            y=wr.SummaryMetric(shown.worst),
            z=wr.Config(last_share_column(resource)),
            log_x=True,
            running_ymax=True,
        )
        for resource in RESOURCES
    ]


def _last_share(shown: Shown) -> list[Panel]:
    return [
        wr.ScatterPlot(
            title=f"Worst-case accuracy against the last stage's share of {_LABELS[resource]}",
            x=wr.Config(last_share_column(resource)),
            y=wr.SummaryMetric(shown.worst),
            z=wr.Config(resource),
        )
        for resource in RESOURCES
    ]


def _stages(shown: Shown) -> list[Panel]:
    kinds = {
        "Widths and depths": ("width", "depth"),
        **{f"Shares of {_LABELS[resource]}": (f"{resource}_share",) for resource in RESOURCES},
    }
    ends = [wr.ParallelCoordinatesPlotColumn(wr.SummaryMetric(number)) for number in (shown.clean, shown.worst)]
    return [
        wr.ParallelCoordinatesPlot(
            title=f"{title} of the stages, to clean and worst-case accuracy",
            columns=[*(wr.ParallelCoordinatesPlotColumn(wr.Config(name)) for name in _names(shown, kind)), *ends],
        )
        for title, kind in kinds.items()
    ]


def _names(shown: Shown, kinds: tuple[str, ...]) -> list[str]:
    return [stage_column(stage, kind) for kind in kinds for stage in range(1, shown.stages + 1)]


def _architectures(shown: Shown) -> list[Panel]:
    return [
        wr.BarPlot(
            title=f"{title} by architecture: mean, least and greatest over seeds",
            metrics=[number],
            groupby=wr.Config(ARCH),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            max_runs_to_show=_MOST_LINES,
            max_bars_to_show=_MOST_LINES,
        )
        for title, number in (("Worst-case accuracy", shown.worst), ("Clean accuracy", shown.clean))
    ]


def _curves() -> list[Panel]:
    return [
        wr.LinePlot(
            title=f"{title} by epoch, mean of each architecture",
            x="epoch",
            y=[number],
            groupby=wr.Config(ARCH),
            groupby_aggfunc="mean",
            groupby_rangefunc="minmax",
            max_runs_to_show=_MOST_LINES,
        )
        for title, number in _CURVES.items()
    ]
