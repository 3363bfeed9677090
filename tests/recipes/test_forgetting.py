"""The measures of continual learning, reckoned by hand."""

import pytest

from recipes.exam import Marks, Step
from recipes.forgetting import report_strategy


def step(*students: tuple[tuple[float, ...], float | None, float | None], refused: tuple[str, ...] = ()) -> Step:
    marks = tuple(Marks(contexts=contexts, leakage=leakage, retention=retention) for contexts, leakage, retention in students)
    return Step(marks=marks, refused=refused, seconds=2.0, cpu_seconds=4.0)


STEPS = [
    step(((0.0, 0.1, 0.0), 0.0, 1.0), ((0.0, 0.0, 0.2), None, 1.0)),
    step(((1.0, 0.2), 0.3, None), ((0.8, 0.0), None, None), refused=("", "")),
    step(((0.5, 0.9, 0.0), 0.1, None), ((1.0, 0.6, 0.2), 0.5, None), refused=("", "")),
    step(((0.5, 0.6, 1.0), 0.2, 0.5), ((0.4, 0.6, 0.8), 0.1, 0.7), refused=("", "too long")),
]


def test_every_measure_is_a_mean_over_students() -> None:
    report = report_strategy(STEPS)
    means = {name: value["mean"] for name, value in report.items() if isinstance(value, dict)}
    assert means == pytest.approx(
        {
            "own": ((1.0 + 0.9 + 1.0) / 3 + (0.8 + 0.6 + 0.8) / 3) / 2,
            "newest": 0.9,
            "average": ((0.5 + 0.6 + 1.0) / 3 + (0.4 + 0.6 + 0.8) / 3) / 2,
            "earlier": (0.55 + 0.5) / 2,
            "forgetting": ((0.5 + 0.3) / 2 + (0.6 + 0.0) / 2) / 2,
            "backward_transfer": ((-0.5 - 0.3) / 2 + (-0.4 + 0.0) / 2) / 2,
            "forward_transfer": ((0.1 + 0.0) / 2 + 0.0) / 2,
            "leakage": (0.2 + 0.3) / 2,
            "leakage_before": 0.0,
            "retention": 0.6,
            "retention_before": 1.0,
            "kept": (0.55 + 0.5) / (0.95 + 0.7),
            "first_kept": 0.9 / 1.8,
        }
    )
    assert report["refused"] == 1
    assert report["seconds_per_update"] == pytest.approx(8.0 / 6)
    assert report["cpu_seconds_per_update"] == pytest.approx(16.0 / 6)


def test_the_matrix_is_lower_triangular_with_deviations_over_students() -> None:
    matrix = report_strategy(STEPS)["matrix"]
    assert [len(row) for row in matrix] == [1, 2, 3]
    assert matrix[0][0] == pytest.approx({"mean": 0.9, "deviation": 0.1})
    assert matrix[2][1] == pytest.approx({"mean": 0.6, "deviation": 0.0})


def test_what_was_not_asked_has_no_figure() -> None:
    steps = [
        Step(marks=tuple(mark.model_copy(update={"leakage": None, "retention": None}) for mark in step.marks), refused=step.refused)
        for step in STEPS
    ]
    report = report_strategy(steps)
    assert report["leakage"] is None and report["retention"] is None
