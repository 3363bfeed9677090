"""What is left of earlier updates after later ones: the matrix of accuracies, and the measures of continual learning.

Sources: the matrix, SEAL (arXiv 2506.10943, figure 6); average accuracy, backward and forward transfer, GEM (1706.08840); forgetting,
Chaudhry et al. (1801.10112).
"""

from collections.abc import Mapping, Sequence
from statistics import fmean, pstdev
from typing import Any

from rich import box
from rich.table import Table

from recipes.exam import Step
from recipes.statistics import Summary, ratio, summarize, summarize_known


def report_strategy(steps: Sequence[Step]) -> dict[str, Any]:
    """The figures of one strategy, each over students.

    Args:
        steps: The first is that of the untouched base.
    """
    students, length = range(len(steps[0].marks)), len(steps) - 1
    # accuracy[student][t][k]: on context k after t updates.
    accuracy = [[step.marks[student].contexts for step in steps] for student in students]

    earlier = range(length - 1)
    own = [[rows[k + 1][k] for k in range(length)] for rows in accuracy]
    last = [rows[length] for rows in accuracy]
    measures: dict[str, list[float]] = {
        "own": [fmean(row) for row in own],
        "newest": [row[-1] for row in own],
        "average": [fmean(row[:length]) for row in last],
        "earlier": [fmean(row[: length - 1]) for row in last],
        "forgetting": [fmean(max(rows[t][k] for t in range(k + 1, length + 1)) - rows[length][k] for k in earlier) for rows in accuracy],
        "backward_transfer": [fmean(rows[length][k] - rows[k + 1][k] for k in earlier) for rows in accuracy],
        "forward_transfer": [fmean(rows[k][k] - rows[0][k] for k in range(1, length)) for rows in accuracy],
    }
    not_always_asked = {
        "leakage": [_mean([step.marks[student].leakage for step in steps[1:]]) for student in students],
        "leakage_before": [steps[0].marks[student].leakage for student in students],
        "retention": [steps[-1].marks[student].retention for student in students],
        "retention_before": [steps[0].marks[student].retention for student in students],
    }
    updates = len(students) * length
    return {
        **{name: summarize(values) for name, values in measures.items()},
        **{name: summarize_known(values) for name, values in not_always_asked.items()},
        "kept": ratio(measures["earlier"], [fmean(row[:-1]) for row in own]),
        "first_kept": ratio([row[0] for row in last], [row[0] for row in own]),
        "matrix": [[_spread([rows[t][k] for rows in accuracy]) for k in range(t)] for t in range(1, length + 1)],
        "refused": sum(bool(why) for step in steps for why in step.refused),
        "seconds_per_update": sum(step.seconds for step in steps) / updates,
        "cpu_seconds_per_update": sum(step.cpu_seconds for step in steps) / updates,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Mean and standard deviation over students, as published."""
    return {"mean": fmean(values), "deviation": pstdev(values)}


def table(title: str, reports: Mapping[str, Mapping[str, Any]]) -> Table:
    """The table a user sees: percentages with their intervals, and CPU seconds."""
    grid = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    grid.add_column("strategy", no_wrap=True)
    for heading in ("own", "newest", "earlier", "kept", "retention", "leakage", "CPU s"):
        grid.add_column(heading, justify="right")
    for name, report in reports.items():
        cells = [_cell(report[key]) for key in ("own", "newest", "earlier", "kept", "retention", "leakage")]
        grid.add_row(name, *cells, f"{report['cpu_seconds_per_update']:.2f}")
    return grid


def _cell(summary: Summary | None) -> str:
    return f"{summary['mean']:.1%}\n{100 * summary['low']:.0f}-{100 * summary['high']:.0f}" if summary else ""
