"""What a comparison shows: accuracy under each condition with its interval, what was gained and lost, which ranking the figures support."""

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from rich import box
from rich.table import Table

from protocol.errors import TutelageError
from protocol.messages import Context, Outcomes, accuracy
from recipes.conditions import Effect, Row, Tried
from recipes.statistics import Groups, Summary, difference, mean_by_context, summarize

_SELF_EVIDENT = tuple(f"_minus_{name}" for name in ("no_edit", "passage_only", "reference_edits", "in_context", "other_context"))
"""Differences that the report has and the screen leaves out."""

_SIDE_EFFECTS: Final = ("leakage", "retention")
_ASKED = ("no_edit", "in_context", "retrieval", "weights_and_retrieval")
"""Conditions that differ in what is read: all others read as much as the untouched student."""


BeforeAfter = tuple[float, float] | None
"""Shares of answers to a probe, before an update and after; None where nothing was learned, or it was not asked or graded."""


@dataclass
class Measured:
    """One condition on one student, and what else changed. Answers gained and lost are means over repeats and candidates.

    Attributes:
        accuracies: Per context, mean over repeats and candidates.
        scores: The same of the grader's scores: F1, or the probability that an answer is right.
        seconds: Of all inner loops.
        trained_tokens: Of one inner loop, mean over all candidates; one that was not learned counts none.
        malformed, refused: Candidates.
        ungraded: Answers.
        leakage, retention: Per context, side effects of its first self-edit, where that is a teacher's.
    """

    accuracies: list[float]
    scores: list[float]
    gained: float = 0.0
    lost: float = 0.0
    seconds: float = 0.0
    trained_tokens: float = 0.0
    malformed: int = 0
    refused: int = 0
    ungraded: int = 0
    leakage: list[BeforeAfter] = field(default_factory=list)
    retention: list[BeforeAfter] = field(default_factory=list)


@dataclass
class Scores:
    """All conditions on one student. `refusals` are reasons, one for each condition that has any.

    `read_tokens` and `found` are as in `recipes.conditions.Tried`.
    """

    conditions: dict[str, Measured]
    refusals: dict[str, str] = field(default_factory=dict)
    read_tokens: Mapping[str, float] = field(default_factory=dict)
    found: Sequence[float] = ()


def report_student(contexts: Sequence[Context], seeds: Sequence[Tried], last: str) -> dict[str, Any]:
    """A student's part of the report, from what came of all conditions with each seed.

    Args:
        last: The teacher that others are compared with.
    """
    graded = find_graded(seeds)
    scores = [measure_conditions([contexts[i] for i in graded], take(tried, graded)) for tried in seeds]
    groups = [contexts[i].group for i in graded]
    return {**report_scores(scores, last, groups), "left_out": len(contexts) - len(graded)}


def find_graded(tried: Sequence[Tried]) -> list[int]:
    """Which contexts have a verdict wherever there are answers: on others no two conditions can be compared.

    Raises:
        TutelageError: None has.
    """
    graded = [
        i
        for i in range(len(tried[0].base))
        if all(
            any(outcome.correct is not None for outcome in one.base[i])
            and all(effect.change.is_graded for row in one.rows.values() for effect in row[i] if isinstance(effect, Effect))
            for one in tried
        )
    ]
    if not graded:
        raise TutelageError("no context has verdicts under every condition, so nothing can be compared; see that the grader works")
    return graded


def take(tried: Tried, contexts: Sequence[int]) -> Tried:
    """What came of some of the contexts."""
    rows = {name: [row[i] for i in contexts] for name, row in tried.rows.items()}
    return replace(tried, base=[tried.base[i] for i in contexts], rows=rows, found=[tried.found[i] for i in contexts if tried.found])


def measure_conditions(contexts: Sequence[Context], tried: Tried) -> Scores:
    """The figures of all conditions with one seed."""
    base = [accuracy(outcomes) for outcomes in tried.base]
    measured = {name: measure(row, tried.base, contexts) for name, row in tried.rows.items()}
    reasons = {name: [effect for own in row for effect in own if isinstance(effect, str)] for name, row in tried.rows.items()}
    untouched = Measured(base, [_score([own]) for own in tried.base], ungraded=_count_ungraded(tried.base, contexts))
    refusals = {name: own[0] for name, own in reasons.items() if own}
    return Scores({"no_edit": untouched, **measured}, refusals, tried.read_tokens, tried.found)


def measure(row: Row, base: Sequence[Outcomes], contexts: Sequence[Context]) -> Measured:
    """One condition's figures; a candidate without an effect leaves the student as it was."""
    after = [[e.change.adapted if isinstance(e, Effect) else (before,) for e in own] for own, before in zip(row, base, strict=True)]
    effects = [[effect for effect in own if isinstance(effect, Effect)] for own in row]
    counted = [(effect, len(own)) for own, known in zip(row, effects, strict=True) for effect in known]
    answered = [(c, repeat) for c, known in zip(contexts, effects, strict=True) for effect in known for repeat in effect.change.adapted]
    return Measured(
        [statistics.fmean(statistics.fmean(map(accuracy, repeats)) for repeats in own) for own in after],
        [statistics.fmean(map(_score, own)) for own in after],
        gained=sum(effect.change.gained / len(effect.change.adapted) / candidates for effect, candidates in counted),
        lost=sum(effect.change.lost / len(effect.change.adapted) / candidates for effect, candidates in counted),
        seconds=sum(effect.seconds for effect, _ in counted),
        trained_tokens=sum(effect.trained_tokens / candidates for effect, candidates in counted) / len(row),
        malformed=sum(effect is None for own in row for effect in own),
        refused=sum(isinstance(effect, str) for own in row for effect in own),
        ungraded=_count_ungraded([repeat for _, repeat in answered], [context for context, _ in answered]),
        leakage=_before_and_after(row, 0),
        retention=_before_and_after(row, 1),
    )


def _score(repeats: Sequence[Outcomes]) -> float:
    """The grader's mean score; an answer without one has that of its verdict."""
    graded = [outcome for outcomes in repeats for outcome in outcomes if outcome.correct is not None]
    return statistics.fmean(float(o.correct or 0) if o.score is None else o.score for o in graded) if graded else 0.0


def _count_ungraded(answers: Sequence[Outcomes], contexts: Sequence[Context]) -> int:
    """Answers whose verdict is missing although there was something to grade them against."""
    pairs = [pair for own, context in zip(answers, contexts, strict=True) for pair in zip(context.questions, own, strict=True)]
    return sum(bool(question.answers) and outcome.correct is None for question, outcome in pairs)


def _before_and_after(row: Row, probe: int) -> list[BeforeAfter]:
    """Each context's accuracy on one of its probes: 0 for leakage, 1 for retention."""
    probed = [[effect.probes[probe] for effect in own if isinstance(effect, Effect) and len(effect.probes) > probe] for own in row]
    changes = [own[0] if own else None for own in probed]
    return [(change.base_accuracy, change.adapted_accuracy) if change and change.is_graded else None for change in changes]


def report_scores(seeds: Sequence[Scores], last: str, groups: Groups = None) -> dict[str, Any]:
    """A student's part of the report. With several seeds, a context's accuracy is its mean over them.

    Args:
        last: The condition that others are compared with.
        groups: Of the contexts.
    """
    names = list(seeds[0].conditions)
    pooled = {name: mean_by_context([scores.conditions[name].accuracies for scores in seeds]) for name in names}
    report: dict[str, Any] = {
        "scores": {name: summarize(pooled[name], groups) for name in names},
        "gain": {name: difference(pooled[name], pooled["no_edit"], groups) for name in names},
        "answer_scores": {name: summarize(mean_by_context([scores.conditions[name].scores for scores in seeds]), groups) for name in names},
        "answers_gained": {name: sum(s.conditions[name].gained for s in seeds) / len(seeds) for name in names},
        "answers_lost": {name: sum(s.conditions[name].lost for s in seeds) / len(seeds) for name in names},
        "malformed": {name: sum(s.conditions[name].malformed for s in seeds) for name in names},
        "refused": {name: sum(s.conditions[name].refused for s in seeds) for name in names},
        "ungraded": {name: sum(s.conditions[name].ungraded for s in seeds) for name in names},
        "trained_tokens": {name: round(sum(s.conditions[name].trained_tokens for s in seeds) / len(seeds), 1) for name in names},
        "read_tokens": dict(seeds[0].read_tokens),
        "seconds": {name: round(sum(s.conditions[name].seconds for s in seeds), 1) for name in names},
        "differences": {f"{last}_minus_{name}": difference(pooled[last], pooled[name], groups) for name in names if name != last},
        "ranking": rank(pooled, groups),
        "refusals": {name: reason for scores in seeds for name, reason in scores.refusals.items()},
    }
    if seeds[0].found:
        report["found"] = summarize(seeds[0].found, groups)
    for effect in _SIDE_EFFECTS:
        report |= _report_side_effect(effect, seeds, last, groups)
    return report


def _report_side_effect(effect: str, seeds: Sequence[Scores], last: str, groups: Groups) -> dict[str, Any]:
    """Leakage or retention by condition, before and after; and by how much it is another after the last teacher's self-edits."""
    known: dict[str, dict[int, list[float]]] = {}
    for name in seeds[0].conditions:
        columns = zip(*(getattr(scores.conditions[name], effect) for scores in seeds), strict=True)
        measured = {i: [change for change in changes if change] for i, changes in enumerate(columns)}
        if own := {i: mean_by_context(changes) for i, changes in measured.items() if changes}:
            known[name] = own
    if not known:
        return {}

    def of(contexts: Iterable[int]) -> Groups:
        return [groups[i] for i in contexts] if groups else None

    shares = {
        name: {when: summarize([change[side] for change in own.values()], of(own)) for side, when in enumerate(("before", "after"))}
        for name, own in known.items()
    }
    differences = {}
    for name, own in known.items():
        if name != last and (both := [i for i in own if i in known.get(last, {})]):
            after = [[changes[i][1] for i in both] for changes in (known[last], own)]
            differences[f"{last}_minus_{name}"] = difference(after[0], after[1], of(both))
    return {effect: shares, f"{effect}_differences": differences}


def rank(accuracies: Mapping[str, Sequence[float]], groups: Groups = None) -> list[dict[str, Any]]:
    """Conditions from best to worst, each with its lead over the next and whether the interval of that supports the order."""
    order = sorted(accuracies, key=lambda name: -sum(accuracies[name]))
    ranking: list[dict[str, Any]] = []
    for name, following in zip(order, [*order[1:], None], strict=True):
        lead = difference(accuracies[name], accuracies[following], groups) if following else None
        ranking.append({"condition": name, "lead": lead, "supported": bool(lead and is_clear(lead))})
    return ranking


FEWEST: Final = 6
"""Contexts, or groups of them: were there no difference, five would all fall on one side in one case of sixteen."""


def is_clear(summary: Summary) -> bool:
    """Whether a difference's interval leaves none out, and is over enough contexts or groups to be one."""
    return summary.get("groups", summary["n"]) >= FEWEST and (summary["low"] > 0 or summary["high"] < 0)


def table(title: str, report: Mapping[str, Any]) -> Table:
    """The table a user sees."""
    grid = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    grid.add_column("condition", no_wrap=True)
    for heading in ("accuracy", "95% interval", "n", "gain", "answers", "tokens"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for name, row in report["scores"].items():
        changed = f"+{report['answers_gained'][name]:.0f} -{report['answers_lost'][name]:.0f}"
        trained = report["trained_tokens"][name]
        grid.add_row(
            name.replace("_", " "),
            f"{row['mean']:.1%}",
            f"{100 * row['low']:.1f} to {100 * row['high']:.1f}",
            str(row["n"]),
            f"{report['gain'][name]['mean']:+.1%}",
            "" if name == "no_edit" else changed,
            f"{trained:.0f}" if trained else "",
        )
    return grid


def describe(report: Mapping[str, Any]) -> list[str]:
    """What the table does not say: differences that matter, the ranking, side effects, and what went wrong."""
    told = []
    for name, summary in report["differences"].items():
        if not name.endswith(_SELF_EVIDENT):
            told.append(f"{name}: {describe_difference(summary)}".replace("_", " "))
    if "found" in report:
        found, read = report["found"], report["read_tokens"]
        told.append(f"looked up: the right passage for {found['mean']:.1%} [{found['low']:.1%}, {found['high']:.1%}] of questions")
        costs = [f"{name} {tokens:.0f}".replace("_", " ") for name, tokens in read.items() if name in _ASKED]
        told.append(f"tokens read for an answer: {', '.join(costs) or 'not counted'}")
    signs = [" > " if place["supported"] else " ~ " for place in report["ranking"][:-1]]
    ranking = "".join(place["condition"].replace("_", " ") + sign for place, sign in zip(report["ranking"], [*signs, ""], strict=True))
    told.append(f"ranking: {ranking}" + (" (~: its interval does not support the order)" if " ~ " in signs else ""))
    for effect in _SIDE_EFFECTS:
        told += _describe_side_effect(effect, report)
    for problem, meaning in (("malformed", "are no self-edits"), ("refused", "were refused"), ("ungraded", "have no verdict")):
        counts = [f"{count} of {name.replace('_', ' ')}" for name, count in report[problem].items() if count]
        if counts:
            told.append(f"{problem}: {', '.join(counts)} {meaning}")
    whole = next(iter(report["scores"].values()))
    if "groups" in whole:
        told.append(f"intervals are over groups of contexts, {whole['groups']} in all")
    if report["left_out"]:
        told.append(f"left out: {report['left_out']} contexts without a verdict under some condition")
    if report["refusals"]:
        told.append(f"the first refusal: {next(iter(report['refusals'].values()))}")
    return told


def _describe_side_effect(effect: str, report: Mapping[str, Any]) -> list[str]:
    """How often before, how often after whose self-edits; and the differences between teachers that their intervals support."""
    if effect not in report:
        return []
    *_, last = shares = report[effect]
    after = ", ".join(f"{name.replace('_', ' ')} {own['after']['mean']:.1%}" for name, own in shares.items())
    differences = {name: own for name, own in report[f"{effect}_differences"].items() if is_clear(own)}
    return [
        f"{effect}: {shares[last]['before']['mean']:.1%} before an update; after: {after}",
        *(f"{effect}, {name.replace('_', ' ')}: {describe_difference(own)}" for name, own in differences.items()),
    ]


def describe_difference(summary: Summary) -> str:
    """A difference in points; says so where its interval does not support a ranking."""
    mean, low, high = (round(summary[name], 3) + 0.0 for name in ("mean", "low", "high"))  # no minus before a zero
    text = f"{mean:+.1%} [{low:+.1%}, {high:+.1%}]"
    return text if is_clear(summary) else text + ", which supports no ranking"
