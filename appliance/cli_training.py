"""`umbra train`, `evaluate`: networks, and how good they are."""

from __future__ import annotations

import json
from contextlib import ExitStack, closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from appliance.terminal import (
    BundleOption,
    ClassMapOption,
    FoldOption,
    JsonOption,
    cache_folder,
    find_bundle,
    progress_bar,
    read_data,
    say,
    talk,
    tell,
    told_progress,
    train_extra,
    wide_console,
    without_nan,
)
from engines import Bundle, EngineChoice, Precision

if TYPE_CHECKING:
    from appliance.dataset import DataSet

training_app = typer.Typer()


class Role(StrEnum):
    """The networks of a bundle."""

    CLASSIFIER = "classifier"
    REGRESSOR = "regressor"
    UNSEEN = "unseen"


class Preset(StrEnum):
    """Lengths of training."""

    PAPER = "paper"
    STARTER = "starter"
    FINISH = "finish"
    SMALL = "small"
    PHOTOGRAPHS = "photographs"
    SMOKE = "smoke"


class Optimizer(StrEnum):
    """Optimisers that were compared."""

    ADAMW = "adamw"
    SGD = "sgd"


class ClassCount(StrEnum):
    """Classes that a classifier learns."""

    FOUR = "4"
    TWO = "2"


class Recipe(StrEnum):
    """How the unseen network is taught."""

    EXPOSED = "exposed"
    WEIGHTED = "weighted"
    PAPER = "paper"


class Split(StrEnum):
    """Parts of a data set."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"
    ALL = "all"


@training_app.command(epilog="Example: umbra evaluate --data frames/ --out report/")
def evaluate(
    data: Annotated[Path, typer.Option(help="Folder with truth.csv or labels.csv.", exists=True, file_okay=False)],
    class_map: ClassMapOption = None,
    fold: FoldOption = None,
    bundle: BundleOption = None,
    runs: Annotated[
        Path | None,
        typer.Option(
            help="Trained networks instead of a bundle: RUNS/classifier/weights.pt, RUNS/regressor/weights.pt.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    precision: Annotated[Precision | None, typer.Option(help="Arithmetic of the engines; default int8.")] = None,
    against: Annotated[
        Precision | None, typer.Option(help="Measure in this arithmetic too, and say how many verdicts differ.")
    ] = None,
    split: Annotated[Split, typer.Option(help="Of a set that is split: which frames.")] = Split.TEST,
    out: Annotated[
        Path | None, typer.Option(help="Write report.json and a picture of each table here.", file_okay=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a bundle against known truth, beside the conventional method."""
    console = talk()
    choice, other_choice = on_cpu(precision), on_cpu(against)
    known = read_data(data, class_map, fold)
    pictures = train_extra("pictures") if out else None
    chosen = find_bundle(bundle, None, None)
    bare = runs is not None or known.pictures
    if bare and (precision or against):
        raise typer.BadParameter("--precision and --against are for a bundle's engines, not for --runs or pictures")
    if bare:
        report = _networks_alone(known, chosen, runs, split)
    else:
        report = _engines(known, chosen, choice, None if against is None else other_choice, split)
    text = json.dumps(without_nan(report), indent=1)
    if out and pictures:
        pictures.draw_report(report, out)
        (out / "report.json").write_text(text + "\n", encoding="utf-8")
        console.print(f"report and pictures in {out}")
    if as_json:
        say(text)
    else:
        _print_report(report)


def _networks_alone(known: DataSet, bundle: Bundle, runs: Path | None, split: Split) -> dict[str, Any]:
    """The report of trained networks, or of a bundle's over pictures, in float32."""
    from appliance.assess import assess_images

    networks = train_extra("networks")
    found = networks.of_runs(runs) if runs is not None else networks.of_bundle(bundle)
    if known.pictures:
        found = {role: networks.seen_from_all_sides(outputs, known.pictures) for role, outputs in found.items()}
    identity = str(runs) if runs is not None else bundle.identity
    return assess_images(known, found, split=split, spec=bundle.spec, identity=identity)


def _engines(
    known: DataSet, bundle: Bundle, choice: EngineChoice, against: EngineChoice | None, split: Split
) -> dict[str, Any]:
    """The report of a bundle's engines, and of those in another arithmetic beside them."""
    from appliance.assess import assess
    from engines.build import build_inspector

    with ExitStack() as opened:
        with talk().status("building engines"):
            inspector = opened.enter_context(closing(build_inspector(bundle, choice, cache=cache_folder())))
            other = None
            if against is not None:
                other = opened.enter_context(closing(build_inspector(bundle, against, cache=cache_folder())))
        progress = opened.enter_context(progress_bar(talk()))
        task = progress.add_task("evaluating", total=None)
        return assess(
            known, inspector, split=split, against=other,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )  # fmt: skip


def on_cpu(precision: Precision | None) -> EngineChoice:
    """OpenVINO in a precision that it has, or in its default."""
    try:
        return EngineChoice(precision=precision)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _print_report(report: dict[str, Any]) -> None:
    table = Table("sensor", "n", "conventional acc.", "F1", f"{report['bundle']} acc.", "F1", title="OK against NG")
    rows = {**report["per_sensor"], "total": report}
    for name, row in rows.items():
        old = row["conventional"]
        table.add_row(
            name, str(row["n"]), *(f"{v:.4f}" for v in (old["accuracy"], old["f1"], row["accuracy"], row["f1"]))
        )
    console = wide_console()
    console.print(table)
    if report["confusion"]:
        confusion = Table("true class", *report["confusion"]["OK"], title="called class")
        for name, counts in report["confusion"].items():
            confusion.add_row(name, *map(str, counts.values()))
        console.print(confusion)
    console.print(_box_table("score: P(NG) x level / 10", {
        f"{name} {kind}": box for name, both in report["scores"].items() for kind, box in both["umbra"].items()
    }))  # fmt: skip
    console.print(_box_table("measured level at each rating", report["level_by_rating"]))
    console.print(f"class right {_number(report, 'class_accuracy')}; OK against NG: {_rates(report)}")
    console.print(f"verdicts at spec {report['verdicts']['spec']}: {_rates(report['verdicts'])}")
    console.print(
        f"level MAE {_number(report, 'mae')}, over 0 to 9 {_number(report, 'mae_0_to_9')}, "
        f"beyond 3 levels {report['beyond_3']:.2%}, Pearson {report['pcc']:.4f}"
    )
    fitted = report["conventional_fitted_on"]
    console.print(
        f"{report['ambiguous']} ambiguous frames left out of accuracy and F1, {report['refused']} refused before the "
        f"networks; conventional specs fitted on {f'{fitted} training frames' if isinstance(fitted, int) else fitted}"
    )
    if other := report.get("against"):
        console.print(
            f"against {other['engine']}: {other['flips']} verdicts flip ({other['flip_share']:.2%}), score differs by "
            f"{other['score_difference']:.4f}, level by {other['level_difference']:.3f} on the mean; "
            f"level MAE there {other['mae']:.3f}"
        )


def _number(report: dict[str, Any], key: str) -> str:
    """A number with its 95 % interval."""
    low, high = report[f"{key}_interval"] if f"{key}_interval" in report else report["intervals"][key]
    return f"{report[key]:.4f} [dim]({low:.4f} to {high:.4f})[/]"


def _rates(report: dict[str, Any]) -> str:
    words = {"accuracy": "accuracy", "f1": "F1", "recall": "recall", "false_alarms": "false alarms"}
    return ", ".join(f"{word} {_number(report, key)}" for key, word in words.items())


def _box_table(title: str, boxes: dict[str, dict[str, float]]) -> Table:
    """The numbers of box plots, a row each."""
    columns = ("low", "q1", "median", "q3", "high", "mean")
    table = Table("", "n", *columns, title=title)
    for name, box in boxes.items():
        table.add_row(name, str(box["n"]), *(f"{box[column]:.3f}" for column in columns))
    return table


@training_app.command(epilog="Example: umbra train classifier --data frames/ --out runs/classifier --preset smoke")
def train(
    role: Annotated[Role, typer.Argument(help="Which network.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, curve.csv and weights.pt.", file_okay=False)],
    data: Annotated[
        Path | None, typer.Option(help="Folder with truth.csv or labels.csv.", exists=True, file_okay=False)
    ] = None,
    class_map: ClassMapOption = None,
    fold: FoldOption = None,
    simulated: Annotated[
        int | None, typer.Option("--simulate", min=64, help="Simulate this many frames instead; kept beside OUT.")
    ] = None,
    preset: Annotated[
        Preset,
        typer.Option(help="How long; photographs: for pictures of anything, from a network that learnt photographs."),
    ] = Preset.STARTER,
    seed: Annotated[int, typer.Option(min=0, help="Of weights, batches and simulated frames.")] = 0,
    optimizer: Annotated[Optimizer, typer.Option(help="Of the weights.")] = Optimizer.ADAMW,
    start: Annotated[
        str | None, typer.Option("--from", help="Bundle, by name or folder, whose weights to start from.")
    ] = None,
    classes: Annotated[
        ClassCount, typer.Option(help="Of a classifier: 4; 2 (OK against the rest) is there to compare.")
    ] = ClassCount.FOUR,
    recipe: Annotated[
        Recipe | None,
        typer.Option(
            help="Of the unseen network: exposed to pasted outliers (default), weighted (default of photographs: doubt counts, "
            "nothing is pasted), or paper, as printed, to compare."
        ),
    ] = None,
) -> None:
    """Train one network of a bundle; goes on where it was stopped (the `train` extra); more GPUs through torchrun."""
    from appliance.training_sets import training_sets

    if (data is None) == (simulated is None):
        raise typer.BadParameter("wanted one of --data and --simulate")
    if classes is ClassCount.TWO and role is not Role.CLASSIFIER:
        raise typer.BadParameter(f"--classes 2 is for the classifier, the role is {role}")
    if recipe is not None and role is not Role.UNSEEN:
        raise typer.BadParameter(f"--recipe {recipe} is for the unseen network, the role is {role}")
    training, parallel = train_extra(), train_extra("parallel")
    weights = None if start is None else find_bundle(start, None, None).model(role)
    known = None if data is None else read_data(data, class_map, fold)
    with parallel.leader_first(), told_progress(talk()) as progress:
        sets = training_sets(known, simulated, cache=out.parent / "sets", seed=seed, progress=progress)
    weights_file = training.train(
        role,
        sets,
        out,
        preset=preset,
        seed=seed,
        optimizer=optimizer.value,  # a plain string: it goes into the checkpoint
        start=weights,
        classes=int(classes),
        pictures=None if known is None else known.pictures,
        recipe=recipe and recipe.value,
        report=tell,
    )
    if parallel.join_group().leads:
        say(str(weights_file))
    parallel.leave_group()
