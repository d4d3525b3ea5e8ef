"""`robust-arch`: the tools around a study."""

import os
import sys
from collections.abc import Iterable
from itertools import zip_longest
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperCommand, TyperGroup

from robust_arch.errors import InputError, invalid, require_choice

if TYPE_CHECKING:
    import pandas as pd


class _Tools(TyperGroup):
    """An InputError, or a file that cannot be read or written, is one line on standard error and exit status 1."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # `| head` has read enough: typer ends quietly
            raise
        except (InputError, OSError) as error:
            sys.exit(f"error: {error}")


app = typer.Typer(
    cls=_Tools,
    help="The tools around a study: plan it, follow it, read it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
StudyArgument = Annotated[str, typer.Argument(help="a study's name inside the results folder, or its path")]
ResultsDir = Annotated[Path, typer.Option(help="where studies are")]
RESULTS = Path("results")
StudiesArgument = Annotated[
    list[str], typer.Argument(help="studies by name or path, or results.csv files, read as one", metavar="STUDY...")
]
BestBeta = Annotated[
    bool,
    typer.Option("--best-beta", help="of each architecture only the runs whose beta is best by held-out accuracy"),
]
Predictors = Annotated[
    str | None,
    typer.Option("--predictors", help="columns of predictors.csv as variables, like grad_norm,ntk_condition"),
]
_WATCH_SECONDS = "5"
_LONGEST_WATCH = 86_400  # seconds, a day


def _console() -> Console:
    """As wide as the terminal; wide enough for every column where the output goes to a file or a pipe."""
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 240)


def _print(items: Iterable[Table | str]) -> None:
    for item in items:
        print(item) if isinstance(item, str) else _console().print(item)


def _study_path(study: str, results_dir: Path) -> Path:
    """The path of a study that is given by path, or by name inside the results folder."""
    given = Path(study)
    here = given.is_file() or (given / "runs").is_dir() or (given / "results.csv").is_file()
    return given if here or "/" in study else results_dir / study


def _joined(studies: list[str], results_dir: Path, *, best_beta: bool = False) -> "pd.DataFrame":
    """The rows of all studies; prints the provenance of imported ones, and the choice of each architecture's beta."""
    import pandas as pd

    from robust_arch.analysis.published.provenance import provenance_of
    from robust_arch.analysis.reading import read_results

    paths = [_study_path(study, results_dir) for study in studies]
    frames = [read_results(path) for path in paths]
    _print(f"{provenance.text()}\n" for path in paths if (provenance := provenance_of(path)))
    # the columns of a study without rows have no type, which would take away those of the other studies
    joined = pd.concat([rows for rows in frames if len(rows)] or frames, ignore_index=True)
    if best_beta:
        from robust_arch.analysis.best_beta import held_out_accuracies, with_best_beta

        joined, choices = with_best_beta(joined, held_out_accuracies(paths))
        _print(["beta chosen by mean robust accuracy on held-out images (runs), not on test images:"])
        _print([*map(str, choices), ""])
    return joined


def _with_predictors(
    studies: list[str], results_dir: Path, names: list[str], *, best_beta: bool = False
) -> "pd.DataFrame":
    """The rows of all studies, with the columns of predictors.csv that are named."""
    from robust_arch.analysis.predictors.reading import with_predictors

    frame = _joined(studies, results_dir, best_beta=best_beta)
    if not names:
        return frame
    return with_predictors(frame, [_study_path(study, results_dir) for study in studies], names)


_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"robust-arch {version('robust-arch')}")
        raise typer.Exit


@app.callback()
def top(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None:
    """The tools around a study: plan it, follow it, read it."""


@app.command(context_settings=_PASS_ON, add_help_option=False)
def train(context: typer.Context) -> None:
    """Train one run, or a study with -m study=NAME.

    The same as `python -m robust_arch.train`.

    Example: robust-arch train -m study=demo
    """
    from robust_arch.train import main as run

    sys.argv[1:] = context.args
    run()


@app.command(context_settings=_PASS_ON, add_help_option=False)
def evaluate(context: typer.Context) -> None:
    """Evaluate a checkpoint, this project's or a published one.

    The same as `python -m robust_arch.evaluate`.

    Example: robust-arch evaluate checkpoint=results/demo/runs/A/checkpoints/best.ckpt
    """
    from robust_arch.evaluate import main as run

    sys.argv[1:] = context.args
    run()


@app.command("list")
def list_(
    group: Annotated[str | None, typer.Argument(help="one group alone, like studies, arch or attacks")] = None,
    config_dir: Annotated[Path | None, typer.Option(help="a folder of your own groups, as training takes it")] = None,
) -> None:
    """List what can be chosen: studies, arch, attacks and so on.

    Example: robust-arch list studies
    """
    from robust_arch.configuration.listing import listed

    for name, choices in listed(group, config_dir).items():
        table = Table("name", "what it is", title=name, title_justify="left", box=None, pad_edge=False)
        for choice, line in choices.items():
            table.add_row(choice, line)
        _print([table, ""])


@app.command(context_settings=_PASS_ON)
def plan(
    context: typer.Context,
    sample: Annotated[int | None, typer.Option(help="plan this many architectures, spread evenly")] = None,
) -> None:
    """Show the plan of a study, and what was rejected and why; trains and writes nothing.

    Takes the arguments of `python -m robust_arch.train -m`, --config-dir too.

    Example: robust-arch plan study=demo search.budget.params=60000
    """
    from robust_arch.study.plan_table import plan_tables, plans_from_command

    arguments = context.args if sample is None else [*context.args, f"search.sample={sample}"]
    for planned in plans_from_command(arguments):
        _print(plan_tables(planned))


class _WatchCommand(TyperCommand):
    """`--watch` with or without its number of seconds."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the default after a `--watch` that no number follows."""
        given = []
        for argument, following in zip(args, [*args[1:], ""], strict=True):
            given.append(argument)
            if argument == "--watch":
                try:
                    float(following)
                except ValueError:
                    given.append(_WATCH_SECONDS)
        return super().parse_args(ctx, given)


@app.command(cls=_WatchCommand)
def status(
    study: StudyArgument,
    results_dir: ResultsDir = RESULTS,
    every_run: Annotated[bool, typer.Option("--all", help="list every run, also of a study of more than 100")] = False,
    watch: Annotated[
        float | None,
        typer.Option(
            metavar="[SECONDS]", help=f"repeat every SECONDS, by default {_WATCH_SECONDS}, until the study has ended"
        ),
    ] = None,
) -> None:
    """Show how far a study is: counts, time left, best so far, then its runs, those that need attention first.

    Example: robust-arch status demo --watch
    """
    from robust_arch.runs import open_study
    from robust_arch.study.progress import StudyProgress
    from robust_arch.study.status_table import follow, show

    folder = open_study(_study_path(study, results_dir))
    if watch is None:
        _console().print(show(StudyProgress.read(folder), every_run=every_run))
        return
    if not 0 < watch <= _LONGEST_WATCH:
        raise invalid("--watch", watch, f"seconds, above 0 and at most {_LONGEST_WATCH}")
    follow(folder, _console(), seconds=watch, every_run=every_run)


@app.command()
def results(
    study: StudyArgument,
    results_dir: ResultsDir = RESULTS,
    mixed: Annotated[bool, typer.Option("--mixed", help="one table, though its rows may not be compared")] = False,
    every_row: Annotated[bool, typer.Option("--all", help="print every row, also of a table of more than 100")] = False,
) -> None:
    """Rebuild results.csv from the records and print it, rows that may not be compared in tables of their own.

    Example: robust-arch results demo
    """
    from robust_arch.study.results_table import results_tables

    _print(results_tables(_study_path(study, results_dir), mixed=mixed, every_row=every_row))


@app.command()
def report(
    studies: Annotated[
        list[str],
        typer.Argument(help="studies by name inside the results folder, or by path", metavar="STUDY..."),
    ],
    results_dir: ResultsDir = RESULTS,
    into: Annotated[
        Path | None, typer.Option("--into", help="folder of the report; by default report/ in the study's folder")
    ] = None,
    wandb: Annotated[
        str | None, typer.Option(help="offline or online: also log report and figures to wandb, as an artifact")
    ] = None,
    project: Annotated[str | None, typer.Option(help="on wandb; by default the one of its runs")] = None,
) -> None:
    """Write the report of one study or several, one HTML file that needs nothing else, and print where it is.

    Several studies need --into; --wandb takes one study, without --into.

    Example: robust-arch report demo
    Example: robust-arch report stage_width stage_depth --into reports/stages
    """
    from robust_arch.analysis.report.study_report import write_joint_report, write_study_report

    paths = [_study_path(study, results_dir) for study in studies]
    if into is None and len(paths) > 1:
        raise invalid("--into", None, f"a folder for the report of {len(paths)} studies")
    if wandb is not None:
        require_choice("--wandb", wandb, ("offline", "online"))
        if into is not None or len(paths) > 1:
            raise invalid("--wandb", wandb, "one study, without --into")
    elif project is not None:
        raise invalid("--project", project, "--wandb beside it")
    written = write_study_report(paths[0]) if into is None else write_joint_report(paths, into)
    print(f"report: {written.resolve()}")
    if wandb is not None:
        from robust_arch.analysis.plots.of_study import figures_at
        from robust_arch.tracking.report_artifact import log_report

        drawn = [each for figure in figures_at(paths[0]) for each in figure.save(paths[0] / "figures")]
        print(f"wandb: {log_report(paths[0], drawn, mode=wandb, project=project).resolve()}")


@app.command()
def figures(
    study: StudyArgument,
    results_dir: ResultsDir = RESULTS,
    into: Annotated[Path | None, typer.Option("--into", help="folder; by default figures/ in the study's")] = None,
) -> None:
    """Draw the figures that answer a study's question, with their captions, and print what was written.

    As PNG, PDF and SVG, of any study: one's own, an imported or a recorded one. Which figures those are follows from
    the runs: panels per stage, divisions of a budget, pairs, costs, training curves.

    Example: robust-arch figures budget
    """
    from robust_arch.analysis.plots.of_study import figures_at
    from robust_arch.analysis.reading import folder_of

    path = _study_path(study, results_dir)
    folder = into or folder_of(path) / "figures"
    for figure in figures_at(path):
        written = figure.save(folder)
        print(f"{figure.title}:", *(f"  {each}" for each in written), sep="\n")


@app.command()
def claims(
    studies: StudiesArgument,
    results_dir: ResultsDir = RESULTS,
    best_beta: BestBeta = False,
    checkpoint: Annotated[
        str | None, typer.Option("--checkpoint", help="test every claim at this one, like last, instead of at best")
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", help="each statement with its test and its reason")] = False,
) -> None:
    """Test the claims C1 to C3 on recorded runs: verdict, effect with a 95% interval, and number of runs for each.

    C1: more capacity does not necessarily help. C2: a smaller last stage can improve robustness. C3: under one budget
    some allocation is best. Each under parameters and under multiply-accumulates, C1 at best and at last.
    Statements about pairs need two seeds or more.

    Example: robust-arch claims capacity last_stage budget
    """
    from robust_arch.analysis.claims import LEGEND, examine_all, left_out, told, verdict_table
    from robust_arch.analysis.formatting import in_columns

    frame = _joined(studies, results_dir, best_beta=best_beta)
    if checkpoint is not None:
        if checkpoint not in (recorded := sorted(set(frame["checkpoint"].dropna()))):
            raise invalid("--checkpoint", checkpoint, f"one of {', '.join(recorded)}")
        frame = frame[frame["checkpoint"] == checkpoint]
    found = examine_all(frame)
    if not found:
        raise InputError("claims: no two architectures with comparable worst-case accuracies")
    if without := left_out(frame, found[0].group):
        print(f"{in_columns([without])}\n")
    for examined in found:
        print(f"{told(examined) if verbose else verdict_table(examined)}\n")
    if not verbose:
        print(in_columns([LEGEND]))


@app.command()
def effects(
    studies: StudiesArgument,
    results_dir: ResultsDir = RESULTS,
    out: Annotated[Path, typer.Option("--out", help="folder of the figures and of effects.csv")] = Path("effects"),
    draws: Annotated[int, typer.Option("--draws", min=50, max=10_000, help="resamples of architectures")] = 400,
    best_beta: BestBeta = False,
    predictors: Predictors = None,
) -> None:
    """How much each stage's depth and width, the last stage's share, MACs and parameters move robust accuracy.

    From one regression over all architectures of a group; one seed per architecture is enough.

    Example: robust-arch effects capacity last_stage budget
    """
    from robust_arch.analysis.effects.command import effects_of, write_effects
    from robust_arch.analysis.effects.wording import told

    names = predictors.split(",") if predictors else []
    found = effects_of(_with_predictors(studies, results_dir, names, best_beta=best_beta), draws, names)
    for each in found:
        print(told(each), end="\n\n")
    print(*(f"written: {path}" for path in write_effects(found, out)), sep="\n")


@app.command()
def scaling(
    studies: StudiesArgument,
    results_dir: ResultsDir = RESULTS,
    out: Annotated[Path, typer.Option("--out", help="folder of the figures and of scaling.csv")] = Path("scaling"),
    size: Annotated[str, typer.Option("--size", help="N: params or macs")] = "params",
    train_images: Annotated[
        int | None, typer.Option("--train-images", min=1, help="images per epoch; else as recorded, or the data set's")
    ] = None,
    up_to: Annotated[float | None, typer.Option("--up-to", help="fit only networks of at most this size")] = None,
    at: Annotated[float | None, typer.Option("--at", help="predict at this size, beside runs not in the fit")] = None,
    draws: Annotated[int, typer.Option("--draws", min=50, max=10_000, help="resamples of the residuals")] = 200,
    best_beta: BestBeta = False,
) -> None:
    """Robust error as a law of the network's size and of training images seen, with a plateau or without.

    Says when the runs cannot tell the forms apart. Runs that differ in epochs are read as one set.

    Example: robust-arch scaling capacity --size macs --up-to 5e6 --at 2e7
    """
    from robust_arch.analysis.scaling.command import predictions_of, scaling_of, write_scaling
    from robust_arch.analysis.scaling.points import recorded_images
    from robust_arch.analysis.scaling.wording import told

    if size not in ("params", "macs"):
        raise invalid("--size", size, "params or macs")
    for option, value in (("--up-to", up_to), ("--at", at)):
        if value is not None and not 0 < value < float("inf"):
            raise invalid(option, value, "a number greater than 0")
    recorded: dict[str, int] = {}
    for study in studies:
        recorded |= recorded_images(_study_path(study, results_dir))
    frame, images = _joined(studies, results_dir, best_beta=best_beta), train_images or recorded
    found = scaling_of(frame, size, images, draws, up_to)
    predictions = [] if at is None else predictions_of(found, frame, images, at)
    for each, prediction in zip_longest(found, predictions):
        print(told(each, prediction), end="\n\n")
    print(*(f"written: {path}" for path in write_scaling(found, predictions, out)), sep="\n")


@app.command()
def predictors(
    studies: StudiesArgument,
    results_dir: ResultsDir = RESULTS,
    columns: Annotated[
        str | None, typer.Option("--columns", help="like grad_norm,ntk_condition; default: every predictor")
    ] = None,
    batch: Annotated[int, typer.Option("--batch", min=2, help="training images per network")] = 32,
    draws: Annotated[int, typer.Option("--draws", min=50, max=10_000, help="resamples of architectures")] = 1000,
) -> None:
    """Compute cheap numbers of each run's untrained network, and how much they tell of its robust accuracy.

    grad_norm, ntk_condition, operator_bound and local_lipschitz, into predictors.csv in the study's folder; what is
    there is not computed again.

    Example: robust-arch predictors budget capacity --columns grad_norm,ntk_condition
    """
    from robust_arch.analysis.groups import main_group
    from robust_arch.analysis.predictors.correlations import correlations
    from robust_arch.analysis.predictors.reading import with_predictors
    from robust_arch.analysis.predictors.wording import told
    from robust_arch.evaluation.predictors import PREDICTORS
    from robust_arch.study.predictors import compute_predictors

    names = columns.split(",") if columns else list(PREDICTORS)
    paths = [_study_path(study, results_dir) for study in studies]
    written = [compute_predictors(path, names, batch) for path in paths]
    group = main_group(with_predictors(_joined(studies, results_dir), paths, names, batch))
    if group is not None:
        rows = group.rows.drop_duplicates("run_id")  # a run may be in several studies
        print(told(group, correlations(rows, names, draws=draws)), end="\n\n")
    print(*(f"written: {path}" for path in written), sep="\n")


@app.command()
def recommend(
    further: Annotated[list[str] | None, typer.Argument(help="further studies behind --from", metavar="STUDY")] = None,
    params: Annotated[float | None, typer.Option("--params", help="parameters, like 1e6")] = None,
    macs: Annotated[float | None, typer.Option("--macs", help="multiply-accumulates per image, like 1e8")] = None,
    studies: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="STUDY...", help="by name or path, or results.csv files; default: all studies"),
    ] = None,
    results_dir: ResultsDir = RESULTS,
    tolerance: Annotated[float, typer.Option("--tolerance", help="as search.budget.tolerance")] = 0.02,
    attack: Annotated[str, typer.Option("--attack", help="what is predicted: worst_case, or an attack")] = "worst_case",
    where: Annotated[
        list[str] | None, typer.Option("--where", help="COLUMN=VALUE of results.csv, like objective=trades")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=50, help="number of proposals")] = 5,
    apart: Annotated[
        float, typer.Option("--apart", min=0, help="doublings of a stage's depth or width between proposals")
    ] = 0.5,
    width_step: Annotated[
        int | None, typer.Option("--width-step", min=1, help="of proposed widths; default: 8, or less if few fit")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="of every draw")] = 0,
    out: Annotated[Path, typer.Option("--out", help="folder of recommend.csv")] = Path("recommend"),
    write_study: Annotated[
        Path | None, typer.Option("--write-study", help="a study that tests proposals and rules, like next.yaml")
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, max=100, help="new runs per architecture")] = 3,
    predictors: Predictors = None,
) -> None:
    """Propose depths and widths inside a budget, beside published rules, with predicted robust accuracy and interval.

    From a Gaussian process over recorded and imported studies, which is checked on architectures that are left out.

    Example: robust-arch recommend --params 45000 --from budget capacity --write-study next.yaml
    """
    from robust_arch.search import Budget
    from robust_arch.study.predictors import measured
    from robust_arch.study.recommend import next_study
    from robust_arch.study.recommend.command import read_conditions, studies_in, write_recommendation
    from robust_arch.study.recommend.recommendation import Request
    from robust_arch.study.recommend.recommendation import recommend as recommended
    from robust_arch.study.recommend.wording import told

    file = next_study.study_file(write_study) if write_study else None
    names = predictors.split(",") if predictors else []
    budget: dict[str, Any] = {"params": params, "macs": macs, "tolerance": tolerance}  # 1e6 is no int, but whole
    request = Request(
        Budget(**budget),
        count,
        width_step,
        apart,
        f"{attack}_acc",
        read_conditions(where or []),
        names,
        seed,
        seeds=seeds,
    )
    named = [*(studies or []), *(further or [])] or studies_in(results_dir)
    paths = [_study_path(study, results_dir) for study in named]
    frame = _with_predictors(named, results_dir, names)
    found = recommended(frame, request, measured(paths, names) if names else None)
    print(told(found), end="\n\n")
    print(f"written: {write_recommendation(found, out)}")
    if file:
        recorded = next_study.recorded_config(found, paths)
        unknown = next_study.write_study(found, file, seeds, recorded)
        print(
            f"written: {file}",
            *(f"WARNING: it does not set {each}, which is not known here" for each in unknown),
            sep="\n",
        )
        print(
            "to run it (`robust-arch plan` with the same arguments shows its plan):",
            next_study.command(file),
            sep="\n  ",
        )


@app.command()
def dashboard(
    study: StudyArgument,
    results_dir: ResultsDir = RESULTS,
    project: Annotated[str | None, typer.Option(help="on wandb; by default the one of its runs")] = None,
    entity: Annotated[str | None, typer.Option(help="user or team on wandb; by default the account's")] = None,
    online: Annotated[bool, typer.Option("--publish", help="save it on wandb: needs an account and network")] = False,
    out: Annotated[Path | None, typer.Option(help="the file; by default report/dashboard.json")] = None,
) -> None:
    """Define a study's dashboard on wandb, write the definition as JSON, and publish it if asked to.

    Needs the extra `dashboard`; only --publish needs an account and network.

    Example: robust-arch dashboard demo
    """
    from robust_arch.runs import StudyFolder
    from robust_arch.tracking.dashboard import build_dashboard, publish, write_definition

    path = _study_path(study, results_dir)
    page = build_dashboard(path, project=project, entity=entity)
    written = out or StudyFolder(path).report_path.with_name("dashboard.json")
    write_definition(page, written)
    print(f"definition: {written.resolve()}")
    if online:
        print(f"published: {publish(page)}")
        return
    print(f"to see it in the project {page.project} of an account on wandb:", "wandb login", sep="\n  ")
    print(f"  wandb sync {quote(str(path))}/runs/*/wandb/offline-run-*", "this command with --publish", sep="\n  ")


@app.command()
def merge(
    sources: Annotated[
        list[str], typer.Argument(help="studies by name or path, like results/demo", metavar="SOURCE...")
    ],
    into: Annotated[str, typer.Option(help="the study that they are merged into, which need not exist")],
    results_dir: ResultsDir = RESULTS,
) -> None:
    """Join studies that were run on several machines: their records, without weights; no source is changed.

    A run that two of them completed with different numbers is reported and left unchanged; the exit status is then 1.

    Example: robust-arch merge machine-a/results/demo machine-b/results/demo --into results/demo
    """
    from robust_arch.study.merge import merge_studies
    from robust_arch.study.merge_table import merge_tables

    target = _study_path(into, results_dir)
    holds_studies = not (Path(into) / "runs").is_dir() and any(Path(into).glob("*/runs"))
    if holds_studies or Path(into).resolve() == results_dir.resolve():
        raise invalid("--into", into, "a study's name, or a path like results/<study>; this is a folder of studies")
    outcome = merge_studies([_study_path(source, results_dir) for source in sources], target)
    _print(merge_tables(outcome, target))
    if outcome.conflicts:
        sys.exit(1)


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="an evaluation record, evaluations/<eval_id>.json of a run")],
    second: Annotated[Path, typer.Argument(help="another one, of the same test images under the same threat")],
) -> None:
    """Compare two networks on the same test images, attack by attack, with McNemar's exact test.

    Example: robust-arch compare results/demo/runs/A/evaluations/B.json results/demo/runs/C/evaluations/D.json
    """
    from robust_arch.analysis.paired import compare_records

    columns = ("correct under", "n", "difference", "95% interval", "only first", "only second", "p")
    table = Table(*columns, title="first minus second, in points of accuracy", title_justify="left")
    for name, found in compare_records(first, second).items():
        interval = f"{100 * found.low:+.2f} to {100 * found.high:+.2f}"
        counts = (str(found.only_first), str(found.only_second), f"{found.p_value:.3g}")
        table.add_row(name, str(found.n), f"{100 * found.difference:+.2f}", interval, *counts)
    _print([table])


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="a published checkpoint, a torch file")],
    out: Annotated[Path, typer.Argument(help="the checkpoint to write, like wrn_34_r.ckpt")],
    arch: Annotated[str | None, typer.Option(help="its architecture: a preset, or a name as in results.csv")] = None,
    depths: Annotated[str | None, typer.Option(help="instead of --arch: blocks per stage, like 5,5,5")] = None,
    widths: Annotated[str | None, typer.Option(help="with --depths: channels per stage, like 320,640,512")] = None,
    family: Annotated[str | None, typer.Option(help="with --depths: the family, by default wide_resnet")] = None,
    stem_width: Annotated[int, typer.Option(help="with --depths: channels of the stem")] = 16,
    activation: Annotated[str, typer.Option(help="with --depths: weights do not show it")] = "relu",
    image_size: Annotated[int, typer.Option(help="side of the images in pixels")] = 32,
    mean: Annotated[str | None, typer.Option(help="per channel, like 0.49,0.48,0.45, if not in the file")] = None,
    std: Annotated[str | None, typer.Option(help="with --mean: per channel, like 0.25,0.24,0.26")] = None,
    normalize: Annotated[
        str | None, typer.Option(help="instead of --mean: dataset, of the training images of --data; or identity")
    ] = None,
    data: Annotated[str | None, typer.Option(help="with --normalize dataset: like cifar10")] = None,
    data_root: Annotated[str | None, typer.Option(help="with --data: its folder")] = None,
    force: Annotated[bool, typer.Option("--force", help="replace OUT if it exists")] = False,
) -> None:
    """Convert a published checkpoint into one of this project; every weight must fit, and nothing in it is executed.

    Its normalisation comes with it: what the file carries, or --mean and --std, or --normalize.

    Example: robust-arch import WRN-34-R.pth wrn_34_r.ckpt --arch wrn_34_r
    """
    from robust_arch.common.process import set_up_logging
    from robust_arch.configuration.nodes import training_statistics
    from robust_arch.interop import import_published, read_architecture, read_numbers
    from robust_arch.interop.normalisation import Request

    set_up_logging()  # the import logs what it left out or converted
    fields = {"stem_width": stem_width, "activation": activation} | ({"family": family} if family else {})
    spec = read_architecture(arch, depths, widths, fields)
    means, stds = (read_numbers(key, text) for key, text in (("--mean", mean), ("--std", std)))
    request = Request(normalize, means, stds, ("--normalize", "--mean", "--std"))
    if (data is None) != (normalize != "dataset"):
        raise invalid("--data", data, "the data set, like cifar10, with --normalize dataset and only then")
    layout, normalisation = import_published(
        file, out, spec, image_size=image_size, force=force, request=request,
        statistics=lambda: training_statistics(str(data), data_root),
    )  # fmt: skip
    print(f"written: {out} (key names of {layout})\nnormalisation: {normalisation}")


@app.command("import-results")
def import_results(
    file: Annotated[Path, typer.Argument(help="a published table, CSV", metavar="FILE.csv")],
    columns: Annotated[str, typer.Option("--columns", help="what its columns mean: a YAML file or a mapping's name")],
    name: Annotated[str, typer.Option("--name", help="of the study that it becomes")],
    results_dir: ResultsDir = RESULTS,
    force: Annotated[bool, typer.Option("--force", help="replace a study that was imported before")] = False,
) -> None:
    """Turn a published table into a study that results, report, claims, effects and scaling read.

    Rows that do not fit are named and left out. Source, licence and what `best` means are kept and printed.

    Example: robust-arch import-results rice_widths.csv --columns rice_widths --name rice_widths
    """
    from robust_arch.analysis.published.imported import import_results as imported_from
    from robust_arch.analysis.published.wording import told

    print(told(imported_from(file, columns, results_dir / name, force=force)))


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(help="a checkpoint of this project, or an evaluation record")],
    out: Annotated[Path, typer.Argument(help="the file to write")],
    arch: Annotated[
        list[str] | None, typer.Argument(help="a network of your own: arch._target_=my_package.MyNet, its arguments")
    ] = None,
    *,
    form: Annotated[str, typer.Option("--format", help="published, safetensors, onnx or robustbench")],
    layout: Annotated[
        str | None, typer.Option(help="key names of the format published, by default the family's usual ones")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="raw, ema or swa; by default those that decided the best epoch")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace OUT if it exists")] = False,
) -> None:
    """Write a checkpoint in another format, and check that its logits stay the same.

    published: a torch file under published key names. safetensors: one file of weights and their description, no
    Python needed. onnx: one file that computes logits from images (needs the extra `onnx`). robustbench: an
    evaluation record, evaluations/<eval_id>.json with autoattack, as RobustBench's model_info lists a model.

    Example: robust-arch export wrn_34_r.ckpt wrn_34_r.onnx --format onnx
    """
    from robust_arch.configuration.settings import custom_from
    from robust_arch.interop import export_checkpoint, export_robustbench

    if form == "robustbench":
        if arch or layout or weights:
            raise InputError("--format robustbench: expected no arch, --layout or --weights, which the record has")
        export_robustbench(checkpoint, out, force=force)
    else:
        own = custom_from(arch) if arch else None
        export_checkpoint(checkpoint, out, form, layout=layout, weights=weights, force=force, own=own)
    print(f"written: {out}")


def main() -> None:
    """The command."""
    app()


if __name__ == "__main__":
    main()
