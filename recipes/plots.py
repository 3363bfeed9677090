"""Figures of a report, as PNG and SVG."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from recipes.statistics import Summary


def draw_conditions(students: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Accuracy under each condition with its 95% interval, a panel for each student.

    Args:
        students: By name, a student's part of a report.
        path: Without a suffix.
    """
    conditions = list(next(iter(students.values()))["scores"])
    figure = Figure(figsize=(1.8 + 3.4 * len(students), 0.8 + 0.32 * len(conditions)), layout="constrained")
    panels = figure.subplots(1, len(students), sharey=True, squeeze=False)[0]
    rows = range(len(conditions), 0, -1)
    for panel, (name, report) in zip(panels, students.items(), strict=True):
        scores = [report["scores"][condition] for condition in conditions]
        means = np.array([100 * score["mean"] for score in scores])
        sides = np.abs(np.array([[100 * score[side] for score in scores] for side in ("low", "high")]) - means)
        panel.errorbar(means, rows, xerr=sides, fmt="o", color="#1f5f8b", capsize=3)
        panel.set(title=name.replace("_", " "), xlabel="accuracy, %", xlim=(-2, 102))
        panel.set_yticks(rows, [condition.replace("_", " ") for condition in conditions])
        panel.grid(axis="x", color="0.9")
    _save(figure, path)


def draw_matrix(rows: Sequence[str], columns: Sequence[str], cells: Sequence[Sequence[Summary | None]], title: str, path: Path) -> None:
    """A heat map of percentages, each with its 95% interval.

    Args:
        cells: One row of summaries per name in `rows`; None leaves a cell empty.
        path: Without a suffix.
    """
    means = np.array([[100 * cell["mean"] if cell else np.nan for cell in row] for row in cells])
    lowest, highest = np.nanmin([0.0, *means.flat]), np.nanmax([100.0, *means.flat])
    figure = Figure(figsize=(2.4 + 1.7 * len(columns), 1.3 + 0.7 * len(rows)), layout="constrained")
    panel = figure.subplots()
    image = panel.imshow(means, cmap="viridis", vmin=lowest, vmax=highest, aspect="auto")
    panel.set_xticks(range(len(columns)), [name.replace("_", " ") for name in columns])
    panel.set_yticks(range(len(rows)), [name.replace("_", " ") for name in rows])
    panel.set(title=title, xlabel="student", ylabel="teacher")
    for y, row in enumerate(cells):
        for x, cell in enumerate(row):
            if cell is None:
                continue
            text = f"{100 * cell['mean']:.0f}\n[{100 * cell['low']:.0f}, {100 * cell['high']:.0f}]"
            panel.text(x, y, text, ha="center", va="center", fontsize=8, color="white" if means[y, x] < (lowest + highest) / 2 else "black")
    figure.colorbar(image, label="%")
    _save(figure, path)


def draw_forgetting(strategies: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """For each strategy the accuracy on every context (columns) after every update (rows), mean and deviation over students.

    Args:
        strategies: By name, a strategy's part of a report.
        path: Without a suffix.
    """
    length = len(next(iter(strategies.values()))["matrix"])
    side = 1.2 + 0.55 * length
    figure = Figure(figsize=(side * len(strategies), side + 0.4), layout="constrained")
    panels = figure.subplots(1, len(strategies), squeeze=False)[0]
    for panel, (name, report) in zip(panels, strategies.items(), strict=True):
        means = np.full((length, length), np.nan)
        for t, row in enumerate(report["matrix"]):
            for k, cell in enumerate(row):
                means[t, k] = 100 * cell["mean"]
                text = f"{100 * cell['mean']:.0f}\n±{100 * cell['deviation']:.0f}"
                panel.text(k, t, text, ha="center", va="center", fontsize=7, color="white" if cell["mean"] < 0.5 else "black")
        image = panel.imshow(means, cmap="viridis", vmin=0, vmax=100)
        places = range(length)
        panel.set_xticks(places, [str(k + 1) for k in places])
        panel.set_yticks(places, [str(t + 1) for t in places])
        panel.set(title=name.replace("_", " "), xlabel="context", ylabel="updates")
    figure.colorbar(image, ax=panels, label="accuracy, %")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    for suffix in (".png", ".svg"):
        figure.savefig(path.with_suffix(suffix), dpi=150)
