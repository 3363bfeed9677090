"""Try a gate: self-edits of every kind are planted, each is learned and judged, and what it did is measured on questions that the gate does
not see.

Thresholds are chosen on other people than those on whom they are tried.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from protocol.errors import InnerLoopFailed, InvalidInput
from protocol.files import write_text
from protocol.identity import derive_seed
from protocol.messages import Lesson
from recipes.gate_figures import Trial, choose_thresholds, report_trials, table
from recipes.gating import open_gate
from recipes.graders import open_grader
from recipes.graders.judge import in_folder
from recipes.inputs import choose_task, student_models
from recipes.run_folder import RunFolder
from recipes.settings import TryGate
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
    splits = (settings.chosen_on, settings.reported_on)
    people = {split: load_tiny(split, settings.edits)[0] for split in splits}
    with RunFolder(settings, people, student_models({"student": settings.student}), team) as folder:
        grader = open_grader(task.grader, in_folder(settings.judge, folder.path))
        learner = Learner(FrozenBase(settings.student.here), domain, settings.keeping, settings.seed)
        probes = load_tiny("population-tuning", settings.gate.probe_questions)[0]
        names = [story.passage for story in list(world.stories("train", 2 * settings.earlier + NAMES, FACTS_SEED))[2 * settings.earlier :]]
        gate = open_gate(settings.gate, learner, domain, grader, probes, names, settings.seed)

        def measure(proposals: Sequence[Proposal], unseen: Sequence[Unseen]) -> Sequence[dict[str, float]]:
            return measure_harm(learner, domain, grader, proposals, unseen)

        tried = {split: try_edits(settings, learner, gate, measure, split, folder.path / f"{split}.json") for split in splits}
        thresholds = choose_thresholds(tried[settings.chosen_on], settings.harm, settings.spared)
        figures = {split: report_trials(trials, thresholds, settings.harm) for split, trials in tried.items()}
        report = folder.write_report({"thresholds": thresholds, **figures})
    console.print(table(f"{settings.student.model} · people: {settings.reported_on}", figures[settings.reported_on]))
    told = ", ".join(f"{name} {value:.3g}" for name, value in thresholds.items())
    console.print(f"thresholds, chosen on people: {settings.chosen_on}: {told}\nreport: {report}")
    return report


def try_edits(settings: TryGate, learner: Learner, gate: Gate, measure: Measure, split: str, path: Path) -> list[Trial]:
    """Learn, judge and measure one self-edit about each of a split's people.

    Args:
        path: Has the trials so far.
    """
    trials = _read_trials(path)
    parent, earlier = teach_earlier(settings, learner, split)
    with stage(f"{split} · trying self-edits", settings.edits, len(trials)) as advance:
        while len(trials) < settings.edits:
            planted = plant_edits(settings, split, range(len(trials), min(len(trials) + settings.cohort, settings.edits)))
            results = learner.learn([parent] * len(planted), [[one.lesson] for one in planted], derive_seed(settings.seed, "update", split))
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


def teach_earlier(settings: TryGate, learner: Learner, split: str) -> tuple[Learned, list[world.Story]]:
    """The student that all updates of a split start from, and what it has learned."""
    first = settings.earlier if split == "held_out" else 0
    stories = list(world.stories("train", first + settings.earlier, FACTS_SEED))[first:]
    contexts = load_tiny("train", first + settings.earlier)[0][first:]
    student = learner.nothing
    for number, (context, story) in enumerate(zip(contexts, stories, strict=True)):
        seed = derive_seed(settings.seed, "earlier", split, number)
        (result,) = learner.learn([student], [[Lesson(context=halve(context, seed), edit=plant("questions", story, seed))]], seed)
        if isinstance(result, InnerLoopFailed):
            raise InvalidInput(f"student: it does not learn what it should know before ({result}); take other settings")
        student = result
    return student, stories


def plant_edits(settings: TryGate, split: str, numbers: Iterable[int]) -> list[Planted]:
    """Self-edits about some of a split's people, the kinds in turn."""
    stories, contexts = list(world.stories(split, settings.edits, FACTS_SEED)), load_tiny(split, settings.edits)[0]
    planted = []
    for number in numbers:
        kind, seed = list(KINDS)[number % len(KINDS)], derive_seed(settings.seed, split, number)
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
        raise InvalidInput(
            f"{path} is not as a run wrote it ({error.error_count()} errors); remove it, and its split is tried anew"
        ) from error
