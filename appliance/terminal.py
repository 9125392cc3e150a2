"""What all commands share: options, standard output and error, progress, and where a bundle is found."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from appliance.errors import ApplianceError

DEFAULT_STATION = Path("station")

StationOption = Annotated[Path, typer.Option("--station", help="The station's folder.", file_okay=False)]
BundleOption = Annotated[
    str | None, typer.Option("--bundle", help="Name or folder of a bundle; default: the active one, else starter.")
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


def say(text: str) -> None:
    """One line of machine output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def find_bundle(name: str | None, place: Any, log: Any) -> Any:
    """A bundle by name, else the station's active one, else the shipped starter."""
    from engines import bundle

    if place is not None:
        return place.load_bundle(name, active=log.active_bundle() if log else None)
    return bundle.load(bundle.find(name or "starter"))


def cache_folder() -> Path:
    """Where engines are kept that belong to no station."""
    base = os.environ.get("XDG_CACHE_HOME")
    folder = (Path(base) if base else Path.home() / ".cache") / "umbra" / "engines"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def train_extra() -> Any:
    """The training module, or an error that names the extra to install."""
    try:
        from engines.training import train as module
    except ImportError as error:
        raise ApplianceError(
            f"training needs the train extra ({error.name} is missing): pip install 'umbra[train]'"
        ) from error
    return module
