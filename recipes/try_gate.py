"""Try a gate: self-edits of every kind are planted, each is learned and judged, and what it did is measured on questions that the gate does
not see.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from protocol.errors import InnerLoopFailed, InvalidInput
from protocol.files import write_text
from protocol.identity import derive_seed
from protocol.messages import Lesson
from recipes.gate_figures import Trial, describe, report_trials, table
from recipes.gating import open_gate
from recipes.graders import open_grader
from recipes.graders.judge import in_folder
from recipes.inputs import choose_task, student_models
from recipes.learning_settings import TryGate
from recipes.run_folder import RunFolder
from recipes.team import Team
from recipes.terminal import console, stage
from recipes.tiny import world
from recipes.tiny.harm import Unseen, find_unseen, halve, measure_harm
from recipes.tiny.planted import KINDS, plant
from recipes.tiny.source import FACTS_SEED, load_tiny
from student.base import FrozenBase
from student.gate import Gate
from student.interview import Proposal
from student.keeping import Learned
from student.learner import Learner

NAMES = 64
"""People whose names the gate has to ask about others."""
_TRIALS = TypeAdapter(list[Trial])
Measure = Callable[[Sequence[Proposal], Sequence[Unseen]], Sequence[dict[str, float]]]


@dataclass(frozen=True)
class Planted:
    """A self-edit of a kind about a person; the lesson's context has half of its questions."""

    kind: str
    story: world.Story
    lesson: Lesson


def run(settings: TryGate, team: Team) -> Path:
    """Run the recipe; returns the path of its report."""
    domain, task = choose_task(settings)
    people, _ = load_tiny(settings.split, settings.edits)
    with RunFolder(settings, {"people": people}, student_models({"student": settings.student}), team) as folder:
        grader = open_grader(task.grader, in_folder(settings.judge, folder.path))
        learner = Learner(FrozenBase(settings.student.here), domain, settings.keeping, settings.seed)
        probes, _ = load_tiny("population-tuning", settings.gate.probe_questions)
        names = [context.passage for context in load_tiny("train", 2 * settings.earlier + NAMES)[0][2 * settings.earlier :]]
        gate = open_gate(settings.gate, learner, domain, grader, probes, names, settings.seed)
        measure = partial(measure_harm, learner, domain, grader)
        figures = report_trials(try_edits(settings, learner, gate, measure, folder.path / "trials.json"), settings.harm)
        report = folder.write_report(figures)
    console.print(table(f"{settings.student.model} · people: {settings.split}", figures))
    console.print(f"{describe(figures)}\nreport: {report}")
    return report


def try_edits(settings: TryGate, learner: Learner, gate: Gate, measure: Measure, path: Path) -> list[Trial]:
    """Learn, judge and measure one self-edit about each person.

    Args:
        path: Has the trials so far.
    """
    trials = _read_trials(path)
    parent, earlier = teach_earlier(settings, learner)
    with stage("trying self-edits", settings.edits, len(trials)) as advance:
        while len(trials) < settings.edits:
            planted = plant_edits(settings, range(len(trials), min(len(trials) + settings.cohort, settings.edits)))
            results = learner.learn([parent] * len(planted), [[one.lesson] for one in planted], derive_seed(settings.seed, "update"))
            learned = [(one, result) for one, result in zip(planted, results, strict=True) if isinstance(result, Learned)]
            proposals = [Proposal(parent, result, (one.lesson,)) for one, result in learned]
            verdicts = gate.judge(proposals)
            unseen = [
                find_unseen(one.story, one.lesson.edit, earlier, {row.question for row in verdict.answers})
                for (one, _), verdict in zip(learned, verdicts, strict=True)
            ]
            found = zip(verdicts, measure(proposals, unseen), strict=True)
            for one, result in zip(planted, results, strict=True):
                if isinstance(result, InnerLoopFailed):
                    trials.append(Trial(kind=one.kind, failed=str(result), harm={}))
                else:
                    verdict, harm = next(found)
                    trials.append(Trial(kind=one.kind, harm=harm, checks=verdict.checks))
            write_text(path, _TRIALS.dump_json(trials).decode())
            advance(len(planted), f"refused {sum(not trial.passed for trial in trials)}")
    return trials


def teach_earlier(settings: TryGate, learner: Learner) -> tuple[Learned, list[world.Story]]:
    """The student that all updates start from, and what it has learned; another one for each split."""
    first = settings.earlier if settings.split == "held_out" else 0
    stories = list(world.stories("train", first + settings.earlier, FACTS_SEED))[first:]
    contexts = load_tiny("train", first + settings.earlier)[0][first:]
    student = learner.nothing
    for number, (context, story) in enumerate(zip(contexts, stories, strict=True)):
        seed = derive_seed(settings.seed, "earlier", settings.split, number)
        (result,) = learner.learn([student], [[Lesson(context=halve(context, seed), edit=plant("questions", story, seed))]], seed)
        if isinstance(result, InnerLoopFailed):
            raise InvalidInput(f"student: it does not learn what it should know before ({result}); take other settings")
        student = result
    return student, stories


def plant_edits(settings: TryGate, numbers: Iterable[int]) -> list[Planted]:
    """Self-edits about some of the people, the kinds in turn."""
    stories, contexts = list(world.stories(settings.split, settings.edits, FACTS_SEED)), load_tiny(settings.split, settings.edits)[0]
    planted = []
    for number in numbers:
        kind, seed = list(KINDS)[number % len(KINDS)], derive_seed(settings.seed, settings.split, number)
        planted.append(
            Planted(kind, stories[number], Lesson(context=halve(contexts[number], seed), edit=plant(kind, stories[number], seed)))
        )
    return planted


def _read_trials(path: Path) -> list[Trial]:
    if not path.exists():
        return []
    try:
        return _TRIALS.validate_json(path.read_bytes())
    except ValidationError as error:
        raise InvalidInput(f"{path} is not as a run wrote it ({error.error_count()} errors); remove it, and all are tried anew") from error
