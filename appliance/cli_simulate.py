"""`umbra simulate`: dark frames with their truth."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from appliance.terminal import progress_bar, talk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from appliance.simulated import SimulationPlan
    from engines.simulation import Sensor

simulate_app = typer.Typer()


class PaperSet(StrEnum):
    """The data sets of the dark-blemish paper."""

    CLASSIFICATION = "classification"
    REGRESSION = "regression"
    SENSORS = "sensors"


@simulate_app.command(
    epilog="Example: umbra simulate frames/ --sensor A..F --count 24 --seed 7 --format tiff,png,raw10; "
    "umbra simulate alike/ --like dark1.png dark2.png dark3.png"
)
def simulate(
    out: Annotated[Path, typer.Argument(help="Folder to write.", file_okay=False)],
    more: Annotated[list[Path] | None, typer.Argument(help="Further frames of --like.", metavar="[FRAMES]...")] = None,
    sensor: Annotated[str, typer.Option(help="A..F, or names with commas.")] = "A..F",
    count: Annotated[
        int | None, typer.Option(min=1, help="Frames; default 24, or as many as the paper's set has.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed writes the same files.")] = 0,
    paper_mix: Annotated[
        bool,
        typer.Option("--paper-mix", help="The paper's sets: classes of its Table 1, levels of Table 2, sensors of 3."),
    ] = False,
    part: Annotated[
        PaperSet | None,
        typer.Option(
            help="With --paper-mix: this one alone; default classification with --count, else all, in folders."
        ),
    ] = None,
    format_names: Annotated[
        str,
        typer.Option(
            "--format",
            help="tiff, png, pgm, npy, fits, raw, raw10, raw12, raw14; several with commas are used in turn.",
        ),
    ] = "tiff",
    megapixels: Annotated[
        float | None,
        typer.Option(min=0.1, help="Largest frame; larger sensors get fewer pixels that look the same once stretched."),
    ] = None,
    shading: Annotated[
        float, typer.Option(min=0, help="Factor on the nominal shading and amplifier glow, which are no defects.")
    ] = 1.0,
    like: Annotated[
        Path | None,
        typer.Option(
            exists=True, help="Real dark frames of one exposure, or their folder: fit a sensor to them instead."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
) -> None:
    """Write simulated dark frames of six sensors with truth.csv (class, level, boxes); goes on where it was stopped."""
    from appliance.dataset import DataSetError
    from appliance.simulated import SimulationPlan, write_likeness

    if more and like is None:
        raise typer.BadParameter(f"{more[0]}: further frames want --like before them")
    real, fitted = (None, None) if like is None else _fitted([like, *(more or [])])
    if part is not None and not paper_mix:
        raise typer.BadParameter("--part wants --paper-mix")
    for folder, paper in _set_folders(out, part, paper_mix=paper_mix, whole=count is None).items():
        try:
            plan = SimulationPlan(
                sensors=("like",) if fitted else _sensor_names(sensor), seed=seed, like=fitted,
                count=count if paper_mix else count or 24, formats=tuple(format_names.split(",")), paper=paper,
                megapixels=megapixels, shading=shading,
            )  # fmt: skip
        except DataSetError as error:
            raise typer.BadParameter(str(error)) from error
        _write_set(plan, folder, workers)
        if real is not None:
            talk().print(f"real beside simulated: {write_likeness(plan, real, folder)}")


def _write_set(plan: SimulationPlan, folder: Path, workers: int) -> None:
    """Write one set with a progress bar, and say where its truth is."""
    from appliance.simulated import write_simulated

    with progress_bar(talk()) as progress:
        task = progress.add_task(f"simulating {plan.paper or ''}", total=None)
        truth = write_simulated(
            plan, folder, workers=workers,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )  # fmt: skip
    talk().print(f"{len(plan.frames())} frames, truth in {truth}")


def _fitted(given: list[Path]) -> tuple[NDArray[np.uint16], Sensor]:
    """Real dark frames, those of a folder too, and the sensor that is fitted to them."""
    from appliance.decode import is_frame_name
    from appliance.simulated import read_stack
    from engines.simulation.likeness import fit_sensor

    inside = [
        [path] if path.is_file() else sorted(p for p in path.iterdir() if is_frame_name(p.name)) for path in given
    ]
    real, bits = read_stack([path for paths in inside for path in paths])
    return real, fit_sensor(real, bits=bits, name="like")


def _set_folders(out: Path, part: PaperSet | None, *, paper_mix: bool, whole: bool) -> dict[Path, PaperSet | None]:
    """Which set goes to which folder: one alone to OUT, the paper's three to folders in it."""
    if not paper_mix:
        return {out: None}
    if part is not None or not whole:
        return {out: part or PaperSet.CLASSIFICATION}
    return {out / name: name for name in PaperSet}


def _sensor_names(text: str) -> tuple[str, ...]:
    first, dots, last = text.partition("..")
    if dots and len(first) == len(last) == 1 and first <= last:
        return tuple(chr(c) for c in range(ord(first), ord(last) + 1))
    return tuple(text.split(","))
