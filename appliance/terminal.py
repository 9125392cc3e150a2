"""What all commands share: options, standard output and error, progress, and where a bundle is found."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from appliance.errors import ApplianceError

if TYPE_CHECKING:  # what takes long to import is imported by the commands that need it
    from appliance.dataset import DataSet
    from appliance.station import Station
    from appliance.verdict_log import VerdictLog
    from engines.bundle import Bundle

DEFAULT_STATION = Path("station")

StationOption = Annotated[Path, typer.Option("--station", help="The station's folder.", file_okay=False)]
BundleOption = Annotated[
    str | None, typer.Option("--bundle", help="Name or folder of a bundle; default: the active one, else starter.")
]
ClassMapOption = Annotated[
    Path | None,
    typer.Option(
        help="TOML file: what the set's columns and classes mean; default: classes.toml in it.",
        exists=True,
        dir_okay=False,
    ),
]
FoldOption = Annotated[
    str | None, typer.Option(help="K/N: of N parts, part K is for testing and the others for training.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]


def talk() -> Console:
    """Everything that is no machine output goes to standard error."""
    return Console(stderr=True)


def wide_console() -> Console:
    """Standard output; wide where it is no terminal, so that nothing is folded in a file."""
    return Console(width=None if sys.stdout.isatty() else 200)


def progress_bar(console: Console) -> Progress:
    """A bar with count and times; nothing where standard error is no terminal."""
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=console, disable=not console.is_terminal,
    )  # fmt: skip


@contextmanager
def told_progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A bar for work whose name changes on the way: to be called with what is done, how many and out of how many."""
    with progress_bar(console) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def tell(text: str) -> None:
    """One plain line of what a long command does, to standard error."""
    talk().print(text, markup=False, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """One line of machine output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def without_nan(value: Any) -> Any:
    """The value with null for numbers that could not be had: JSON knows no NaN."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and value != value else value  # noqa: PLR0124


def find_bundle(name: str | None, place: Station | None, log: VerdictLog | None) -> Bundle:
    """A bundle by name, else the station's active one, else the shipped starter."""
    from engines import bundle

    if place is not None:
        return place.load_bundle(name, active=log.active_bundle() if log else None)
    return bundle.load(bundle.find(name or "starter"))


def read_data(folder: Path, class_map: Path | None, fold: str | None) -> DataSet:
    """A data set, split for cross-validation where a fold K/N is given."""
    from appliance.dataset import DataSet

    known = DataSet.read(folder, class_map)
    if fold is None:
        return known
    number, slash, folds = fold.partition("/")
    if not (slash and number.isdecimal() and folds.isdecimal()):
        raise typer.BadParameter(f"fold {fold!r}: wanted K/N, as 1/5")
    return known.fold(int(number), int(folds))


def cache_folder() -> Path:
    """Where engines are kept that belong to no station."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "umbra" / "engines"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def train_extra(name: str = "train") -> Any:
    """A module of engines.training, or an error that names the extra to install."""
    try:
        return import_module(f"engines.training.{name}")
    except ImportError as error:
        raise ApplianceError(
            f"this needs the train extra ({error.name} is missing): pip install 'umbra[train]'"
        ) from error
