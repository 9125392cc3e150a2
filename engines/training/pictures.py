"""Pictures of an evaluation: the dark-blemish paper's Table 3, confusion, Figure 2, levels, Figure 6; of training curves."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from engines.simulation.emva import estimate
from engines.simulation.likeness import band_centres, band_power

OURS, OLD, OK_COLOUR, NG_COLOUR = "#2f6db3", "#b0b0b0", "#4a9c5d", "#c4473a"
mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.grid": False})


def _save(figure: Figure, path: Path) -> Path:
    figure.set_layout_engine("constrained")
    figure.savefig(path, dpi=130, metadata={"Software": None})
    return path


def _boxes(axes: Any, boxes: list[Mapping[str, float]], positions: list[float], colour: str, width: float) -> None:
    drawn = [{"med": b["median"], "q1": b["q1"], "q3": b["q3"], "whislo": b["low"], "whishi": b["high"],
              "mean": b["mean"], "fliers": []} for b in boxes]  # fmt: skip
    axes.bxp(drawn, positions=positions, widths=width, showmeans=True, showfliers=False, patch_artist=True,
             manage_ticks=False, boxprops={"facecolor": colour, "alpha": 0.55}, medianprops={"color": "black"},
             meanprops={"marker": "x", "markeredgecolor": "black", "markersize": 4})  # fmt: skip


def draw_sensors(report: Mapping[str, Any], path: Path) -> Path:
    """Accuracy and F1 a sensor, conventional beside ours (the paper's Table 3)."""
    rows = {**report["per_sensor"], "all": report}
    figure = Figure(figsize=(8, 3.4))
    for number, (key, title) in enumerate((("accuracy", "accuracy"), ("f1", "F1 of NG")), start=1):
        axes = figure.add_subplot(1, 2, number)
        for shift, colour, label, values in (
            (-0.2, OLD, "conventional, spec per sensor", [r["conventional"][key] for r in rows.values()]),
            (0.2, OURS, str(report.get("bundle", "Umbra")), [r[key] for r in rows.values()]),
        ):
            bars = axes.bar([i + shift for i in range(len(rows))], values, 0.38, color=colour, label=label)
            axes.bar_label(bars, [f"{v:.3f}" for v in values], rotation=90, padding=3, fontsize=7)
        axes.set_xticks(range(len(rows)), [f"{name}\n{r['n']}" for name, r in rows.items()])
        axes.set_ylim(0.5, 1.12)
        axes.set_yticks(np.arange(0.5, 1.01, 0.1))
        axes.set_title(title)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=7)
    return _save(figure, path)


def draw_confusion(report: Mapping[str, Any], path: Path) -> Path:
    """True class against called class, in frames."""
    table = report["confusion"]
    true, called = list(table), list(next(iter(table.values())))
    figure = Figure(figsize=(4.6, 3.4))
    axes = figure.add_subplot()
    shares = [[n / max(1, sum(row.values())) for n in row.values()] for row in table.values()]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for r, row in enumerate(table.values()):
        for c, n in enumerate(row.values()):
            axes.text(c, r, str(n), ha="center", va="center", color="white" if shares[r][c] > 0.5 else "black")
    axes.set_xticks(range(len(called)), called)
    axes.set_yticks(range(len(true)), true)
    axes.set_xlabel("called")
    axes.set_ylabel("true class")
    return _save(figure, path)


def draw_scores(report: Mapping[str, Any], path: Path) -> Path:
    """Distribution of the scores a sensor: conventional in DN beside ours (the paper's Figure 2)."""
    figure = Figure(figsize=(8, 3.4))
    names = list(report["per_sensor"])
    for number, (key, title) in enumerate(
        (("conventional_dn", "conventional score, DN (log)"), ("umbra", "score = P(NG) x level / 10")), start=1
    ):
        axes = figure.add_subplot(1, 2, number)
        for shift, kind, colour in ((-0.2, "OK", OK_COLOUR), (0.2, "NG", NG_COLOUR)):
            found = [(i + shift, report["scores"][n][key].get(kind)) for i, n in enumerate(names)]
            there = [(x, b) for x, b in found if b]
            _boxes(axes, [b for _, b in there], [x for x, _ in there], colour, 0.34)
            axes.plot([], [], color=colour, linewidth=6, alpha=0.55, label=kind)
        axes.set_xticks(range(len(names)), names)
        axes.set_title(title)
        if key == "conventional_dn":
            axes.set_yscale("log")
        else:
            axes.axhline(report["verdicts"]["spec"], color="black", linewidth=0.8, linestyle="--", label="spec")
    figure.legend(*figure.axes[1].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7)
    return _save(figure, path)


def draw_levels(report: Mapping[str, Any], path: Path) -> Path:
    """Measured level at each rated level: box plot with means."""
    boxes = report["level_by_rating"]
    figure = Figure(figsize=(5.4, 3.8))
    axes = figure.add_subplot()
    axes.plot([0, 10], [0, 10], color="grey", linewidth=0.8, linestyle="--")
    _boxes(axes, list(boxes.values()), [float(r) for r in boxes], OURS, 0.6)
    axes.set_xticks([float(r) for r in boxes], [f"{r}\n{b['n']}" for r, b in boxes.items()])
    axes.set_xlabel("rated level, frames")
    axes.set_ylabel("measured level")
    axes.set_title(f"MAE {report['mae']:.3f}, beyond 3 levels {report['beyond_3']:.2%}, Pearson {report['pcc']:.3f}")
    return _save(figure, path)


def draw_agreement(report: Mapping[str, Any], path: Path) -> Path:
    """Level against the mean opinion score of many raters (the paper's Figure 6)."""
    boxes = report["mos_by_level"]
    figure = Figure(figsize=(5.4, 3.8))
    axes = figure.add_subplot()
    ends = [min(map(float, boxes)), max(map(float, boxes))]
    axes.plot(ends, ends, color="grey", linewidth=0.8, linestyle="--")
    _boxes(axes, list(boxes.values()), [float(level) for level in boxes], OURS, 0.6)
    axes.set_xticks([float(level) for level in boxes], [f"{level}\n{b['n']}" for level, b in boxes.items()])
    axes.set_xlabel("level, frames")
    axes.set_ylabel("mean opinion score")
    axes.set_title(f"{report['raters']} raters; Pearson with the mean {report['pcc_mean']:.3f}, "
                   f"median {report['pcc_median']:.3f}")  # fmt: skip
    return _save(figure, path)


def draw_curve(curve: Path, path: Path) -> Path:
    """A training's loss, rate and validation numbers over images seen, from its curve.csv."""
    with curve.open(newline="") as file:
        rows = list(csv.DictReader(file))
    known = ("stage", "side", "images", "seconds", "loss", "rate")
    scores = [key for key in rows[0] if key not in known and any(row[key] for row in rows)]
    figure = Figure(figsize=(8, 3.2))
    for number, keys in enumerate((["loss"], scores), start=1):
        axes = figure.add_subplot(1, 2, number)
        for key in keys:
            points = [(float(row["images"]), float(row[key])) for row in rows if row[key]]
            axes.plot([x for x, _ in points], [y for _, y in points], label=key, marker="." if number == 2 else "")
        axes.set_xlabel("images seen")
        if keys:
            axes.legend(fontsize=7)
    figure.axes[0].set_yscale("log")
    return _save(figure, path)


def draw_likeness(real: NDArray[np.uint16], simulated: NDArray[np.uint16], path: Path) -> Path:
    """Real dark frames beside simulated ones: noise, spectra of rows and columns, and the tail of hot pixels."""
    sides = ((real, "real", "black"), (simulated, "simulated", OURS))
    estimates = [estimate(stack) for stack, _, _ in sides]
    figure = Figure(figsize=(8.6, 6))
    noise, tail, rows, columns = (figure.add_subplot(2, 2, k) for k in (1, 2, 3, 4))
    reach = max(3, int(np.ceil(8 * estimates[0].temporal_dn)))
    for (stack, label, colour), found in zip(sides, estimates, strict=True):
        difference = np.diff(stack.astype(np.int32), axis=2).reshape(-1)
        counts = np.bincount(np.clip(difference, -reach, reach) + reach, minlength=2 * reach + 1)
        noise.step(np.arange(-reach, reach + 1), counts / counts.sum(), where="mid", color=colour, label=label)
        mean = stack.mean(0)
        sigma = np.hypot(found.temporal_dn, found.dsnu_dn)
        excess = np.sort(((mean - np.median(mean)) / sigma).reshape(-1))[::-1][: mean.size // 20]
        tail.plot(excess, np.arange(1, len(excess) + 1) / mean.size, color=colour, label=label)
        for axes, lines, averaged in ((rows, found.rows, stack.shape[2]), (columns, found.columns, stack.shape[1])):
            power = band_power(lines, found, averaged)
            axes.plot(band_centres(len(lines.fixed)), power, color=colour, label=label, marker=".")
    for axes, title, across in (
        (noise, "difference of neighbours", "DN"), (tail, "hot pixels of the mean frame", "sigma above the median"),
        (rows, "row means", "cycles a frame"), (columns, "column means", "cycles a frame"),
    ):  # fmt: skip
        axes.set_yscale("log")
        axes.set_title(title)
        axes.set_xlabel(across)
        axes.legend(fontsize=7)
    noise.set_ylabel("share")
    tail.set_ylabel("share of pixels above")
    for axes in (rows, columns):
        axes.set_xscale("log")
        axes.set_ylabel("power, DN²")
    return _save(figure, path)


def draw_report(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Pictures of what an evaluation measured: sensors.png, confusion.png, scores.png, levels.png."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {
        "sensors": (draw_sensors, report["confusion"]),
        "confusion": (draw_confusion, report["confusion"]),
        "scores": (draw_scores, any(both["umbra"] for both in report["scores"].values())),
        "levels": (draw_levels, report["level_by_rating"]),
    }
    return [draw(report, folder / f"{name}.png") for name, (draw, measured) in wanted.items() if measured]
