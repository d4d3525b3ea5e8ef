"""`robust-arch`: the tools around a study."""

import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from robust_arch.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from robust_arch.runs import RunFolder

app = typer.Typer(
    help="The tools around a study: plan it, follow it, read it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
StudyArgument = Annotated[str, typer.Argument(help="a study's name inside the results folder, or its path")]
ResultsDir = Annotated[Path, typer.Option("--results-dir", help="where studies are")]


def _reports_errors(command: Callable[..., None]) -> Callable[..., None]:
    """An InputError is one line on standard error and exit status 1."""

    @wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except InputError as error:
            sys.exit(f"error: {error}")

    return wrapped


def _console() -> Console:
    """As wide as the terminal; wide enough for every column where the output goes to a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 240)


def _study_path(study: str, results_dir: Path) -> Path:
    """A path as it is, a name inside the results folder."""
    given = Path(study)
    return given if (given / "runs").is_dir() or "/" in study else results_dir / study


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@_reports_errors
def plan(
    context: typer.Context,
    sample: Annotated[int | None, typer.Option("--sample", help="plan this many architectures, spread evenly")] = None,
) -> None:
    """Show the plan of a study, and what was rejected and why; trains and writes nothing.

    Takes the arguments of `python -m robust_arch.train -m`, --config-dir too.

    Example: robust-arch plan study=demo search.budget.params=60000
    """
    from robust_arch.planning import plan_tables, plans_from_command

    arguments = context.args if sample is None else [*context.args, f"search.sample={sample}"]
    for planned in plans_from_command(arguments):
        for table in plan_tables(planned):
            _console().print(table)


@app.command()
@_reports_errors
def status(study: StudyArgument, results_dir: ResultsDir = Path("results")) -> None:
    """Show how far a study is: each run of the plan with its state.

    Example: robust-arch status demo
    """
    from robust_arch.runs import StudyFolder, load_study

    path = _study_path(study, results_dir)
    load_study(path)  # says what is wrong with the path
    folder = StudyFolder(path)
    planned = {row["run_id"]: row for row in folder.read_plan()}
    others = [run.run_id for run in folder.runs() if run.run_id not in planned]
    table = Table(title=f"study {folder.name}")
    for column in ("run", "architecture", "seed", "state", "attempts", "held-out robust", "note"):
        table.add_column(column, overflow="fold")
    states: Counter[str] = Counter()
    for run_id in [*planned, *others]:
        run = folder.run(run_id)
        states[run.state] += 1
        remark = "" if run_id in planned else "not in the current plan"
        table.add_row(*_status_row(run, planned.get(run_id, {}), remark))
    console = _console()
    console.print(table)
    console.print(", ".join(f"{count} {state}" for state, count in states.items()))


def _status_row(run: "RunFolder", planned: Mapping[str, Any], remark: str) -> tuple[str, ...]:
    """A run as `status` shows it; notes are the last line of its error, the flags of its training and `remark`.

    planned: its row of plan.csv, for a run that has not begun.
    """
    record, result = run.status, run.result or {}
    facts = record.get("run", planned)
    voided = [why for evaluation in run.evaluation_records() for why in evaluation.get("invalid", [])]
    notes = [run.last_error, *result.get("flags", []), *(f"invalid evaluation: {why}" for why in voided), remark]
    held_out = f"{result['best_val_robust_acc']:.1f}% of {result['selection_images']}" if result else ""
    attempts = str(record.get("attempts", 0))
    return (
        run.run_id,
        facts.get("arch", ""),
        str(facts.get("seed", "")),
        run.state,
        attempts,
        held_out,
        "; ".join(filter(None, notes)),
    )


@app.command()
@_reports_errors
def results(
    study: StudyArgument,
    results_dir: ResultsDir = Path("results"),
    mixed: Annotated[bool, typer.Option("--mixed", help="one table, though its rows may not be compared")] = False,
) -> None:
    """Rebuild results.csv from the records and print it, rows that may not be compared in tables of their own.

    Example: robust-arch results demo
    """
    from robust_arch.analysis.groups import GROUP_COLUMNS, groups
    from robust_arch.runs import StudyFolder, load_study

    path = _study_path(study, results_dir)
    frame = load_study(path)
    written = StudyFolder(path).write_results(frame)
    if mixed:
        _console().print(_results_table(f"study {path.name}, mixed: see recipe, threat and checkpoint", frame))
    else:
        for group in groups(frame):
            _console().print(
                _results_table(f"study {path.name}: {group}", group.rows.drop(columns=list(GROUP_COLUMNS)))
            )
        if len(lost := frame[frame["clean_acc"].isna()]):
            _console().print(_results_table(f"study {path.name}: without numbers", lost))
    print(f"written: {written}")


def _results_table(title: str, frame: "pd.DataFrame") -> Table:
    """Rows of results.csv, without the columns in which nothing stands."""
    table = Table(title=title, title_justify="left")
    shown = frame.drop(columns=["study", "family"]).dropna(axis="columns", how="all")
    for name in shown.columns:
        table.add_column(str(name), overflow="fold", no_wrap=name == "run_id")
    for values in shown.astype(object).where(shown.notna(), "").to_numpy():
        table.add_row(*(_cell(value) for value in values))
    return table


def _cell(value: Any) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


@app.command()
@_reports_errors
def report(study: StudyArgument, results_dir: ResultsDir = Path("results")) -> None:
    """Write a study's report, one HTML file that needs nothing else, and print where it is.

    Example: robust-arch report demo
    """
    from robust_arch.reporting import write_study_report

    written = write_study_report(_study_path(study, results_dir))
    print(f"report: {written.resolve()}")


@app.command()
@_reports_errors
def compare(
    first: Annotated[Path, typer.Argument(help="an evaluation record, evaluations/<eval_id>.json of a run")],
    second: Annotated[Path, typer.Argument(help="another one, of the same test images under the same threat")],
) -> None:
    """Compare two networks on the same test images, attack by attack, with McNemar's exact test.

    Example: robust-arch compare results/demo/runs/A/evaluations/B.json results/demo/runs/C/evaluations/D.json
    """
    from robust_arch.analysis.paired import compare_records

    table = Table(title="first minus second, in points of accuracy", title_justify="left")
    for column in ("correct under", "n", "difference", "95% interval", "only first", "only second", "p"):
        table.add_column(column)
    for name, found in compare_records(first, second).items():
        interval = f"{100 * found.low:+.2f} to {100 * found.high:+.2f}"
        counts = (str(found.only_first), str(found.only_second), f"{found.p_value:.3g}")
        table.add_row(name, str(found.n), f"{100 * found.difference:+.2f}", interval, *counts)
    _console().print(table)


@app.command("import")
@_reports_errors
def import_(
    file: Annotated[Path, typer.Argument(help="a published checkpoint, a torch file")],
    out: Annotated[Path, typer.Argument(help="the checkpoint to write, like wrn_34_r.ckpt")],
    arch: Annotated[str | None, typer.Option("--arch", help="its architecture, a preset")] = None,
    depths: Annotated[
        str | None, typer.Option("--depths", help="blocks a stage, like 5,5,5; instead of --arch")
    ] = None,
    widths: Annotated[str | None, typer.Option("--widths", help="channels a stage, like 320,640,512")] = None,
    family: Annotated[str, typer.Option("--family", help="with --depths: wide_resnet or resnet")] = "wide_resnet",
    stem_width: Annotated[int, typer.Option("--stem-width", help="with --depths: channels of the stem")] = 16,
    activation: Annotated[str, typer.Option("--activation", help="with --depths: weights do not tell it")] = "relu",
    image_size: Annotated[int, typer.Option("--image-size", help="side of the images in pixels")] = 32,
    force: Annotated[bool, typer.Option("--force", help="replace OUT if it exists")] = False,
) -> None:
    """Read a published checkpoint into one of this project; every weight must fit, and nothing in it is executed.

    Example: robust-arch import WRN-34-R.pth wrn_34_r.ckpt --arch wrn_34_r
    """
    from robust_arch.console import set_up_logging
    from robust_arch.interop import import_published, read_architecture

    set_up_logging()  # it says what it left out or converted
    fields = {"family": family, "stem_width": stem_width, "activation": activation}
    spec = read_architecture(arch, depths, widths, fields)
    layout = import_published(file, out, spec, image_size=image_size, force=force)
    print(f"written: {out} (key names of {layout})")


@app.command()
@_reports_errors
def export(
    checkpoint: Annotated[Path, typer.Argument(help="a checkpoint of this project")],
    out: Annotated[Path, typer.Argument(help="the file to write")],
    form: Annotated[str, typer.Option("--format", help="published, safetensors or onnx")],
    layout: Annotated[
        str | None, typer.Option("--layout", help="key names of the format published: huang2021, trades; pytorch_cifar")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace OUT if it exists")] = False,
) -> None:
    """Write a checkpoint in another format, and check that its logits stay the same.

    published: a torch file under published key names. safetensors: one file of weights and their description, no
    Python needed. onnx: one file that computes logits from images (needs the extra `onnx`).

    Example: robust-arch export wrn_34_r.ckpt wrn_34_r.onnx --format onnx
    """
    from robust_arch.interop import export_checkpoint

    export_checkpoint(checkpoint, out, form, layout=layout, force=force)
    print(f"written: {out}")


def main() -> None:
    """The command."""
    app()


if __name__ == "__main__":
    main()
