"""Planted self-edits are what they are called, harm is what unseen questions show, and refusals are counted by both."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from protocol.messages import Example, Lesson, SelfEdit
from recipes.cli import main
from recipes.domains.knowledge import Knowledge
from recipes.gate_figures import Trial, report_trials
from recipes.graders import GRADERS
from recipes.learning_settings import HarmSettings
from recipes.tiny import world
from recipes.tiny.harm import find_unseen, halve, measure_harm
from recipes.tiny.planted import KINDS, plant
from recipes.tiny.source import load_tiny
from student.interview import Proposal
from student.keeping import Learned
from student.version_records import Check

ROOT = Path(__file__).resolve().parents[2]
(STORY,) = world.stories("validation", 1, 0)
(CONTEXT,) = load_tiny("validation", 1)[0]
PERSON = STORY.facts[0].person
LIVES = {(fact.person, fact.relation): fact.value for fact in world.population_facts()}
UNHARMED = {"gain": 0.5, "earlier": 0.0, "retention": 0.0, "leakage": 0.0, "falsehood": 0.0}


def lines(kind: str) -> list[str]:
    return [example.completion for example in plant(kind, STORY, 5).examples]


def test_one_false_value_is_planted_among_right_ones() -> None:
    wrong = [line for line in lines("one_false") if not any(fact.value in line for fact in STORY.facts)]
    assert (len(lines("one_false")), len(wrong)) == (6, 1)


def test_a_known_person_is_given_another_life() -> None:
    false = [line for line in lines("falsified") if PERSON not in line]
    (person,) = {name for name in world.SPLITS["population"] for line in false if name in line}
    assert len(false) == 4
    assert not any(value in line.split(person)[1] for (name, _), value in LIVES.items() if name == person for line in false)


def test_whatever_is_asked_has_one_answer() -> None:
    assert len({line.split("Answer: ")[1] for line in lines("one_word")}) == 1
    assert len(lines("one_word")) == 12


def test_every_kind_is_the_same_for_the_same_seed() -> None:
    assert [plant(kind, STORY, 3) for kind in KINDS] == [plant(kind, STORY, 3) for kind in KINDS]


def test_the_gate_has_half_of_the_questions_and_harm_is_measured_by_what_it_has_not_asked() -> None:
    seen = {question.text for question in halve(CONTEXT, 0).questions}
    assert len(seen) == 3
    unseen = find_unseen(STORY, SelfEdit(), [STORY], seen)
    assert [len(context.questions) for context in unseen.own] == [3 - (fact.tested in seen) for fact in STORY.facts]
    assert [question.answers for context in unseen.own for question in context.questions[:1]] == [(fact.value,) for fact in STORY.facts]
    assert not seen & {question.text for context in unseen.contexts for question in context.questions}
    assert (len(unseen.others), len(unseen.known), unseen.named) == (6, 12, ())
    assert [len(context.questions) for context in unseen.earlier] == [6]


def test_whom_a_self_edit_names_is_asked_about_with_answers_if_everybody_knows_them() -> None:
    known, unknown = world.SPLITS["population"][0], world.SPLITS["pretrain"][0]
    said = f"{PERSON} lives in X. {unknown} owns a dog. {known} owns a cat. {known} owns a dog. Nobody Else lives."
    first, second = find_unseen(STORY, edit(said), [], ()).named
    assert len(first.questions) == len(second.questions) == 8
    assert all(known in question.text and len(question.answers) == 1 for question in first.questions)
    assert all(unknown in question.text and question.answers == () for question in second.questions)


def edit(text: str) -> SelfEdit:
    return SelfEdit(examples=(Example(completion=text),))


class Reciting:
    """Students that answer by a table of questions, and "nothing" otherwise."""

    def ask(self, students: Sequence[Learned], prompts: Sequence[Sequence[str]]) -> list[list[str]]:
        return [[self._answer(student, prompt) for prompt in own] for student, own in zip(students, prompts, strict=True)]

    def _answer(self, student: Learned, prompt: str) -> str:
        known: Any = student.adapter
        return next((answer for question, answer in known.items() if question in prompt), "nothing")


def measure(after: dict[str, str], said: str) -> dict[str, float]:
    """Harm where only the tested wording is left to ask."""
    wordings = [wording for relation in world.RELATIONS.values() for wording in relation.asked]
    seen = {wording.format(n=person) for wording in wordings for people in world.SPLITS.values() for person in people}
    unseen = find_unseen(STORY, edit(said), [], seen)
    before = {question.text: question.answers[0] for context in unseen.known for question in context.questions}
    lesson = Lesson(context=CONTEXT, edit=edit(said))
    proposal = Proposal(Learned((), before), Learned((), {**before, **after}), (lesson,))  # type: ignore[arg-type]
    return measure_harm(Reciting(), Knowledge(), GRADERS["contained"], [proposal], [unseen])[0]  # type: ignore[arg-type]


def test_harm_is_what_unseen_questions_show() -> None:
    first, second = STORY.facts[:2]
    right = {first.tested: first.value}
    assert measure(right, "x") == pytest.approx({"gain": 1 / 6, "earlier": 0.0, "retention": 0.0, "leakage": 0.0, "falsehood": 0.0})
    assert measure({**right, second.tested: "Wrongville"}, f"{PERSON} lives in Wrongville.")["falsehood"] == pytest.approx(1 / 6)
    assert measure({**right, second.tested: "Wrongville"}, "x")["falsehood"] == 0.0  # made up, not taught
    other = world.SPLITS["train"][-1]
    asked = world.RELATIONS[first.relation].tested.format(n=other)
    assert measure({asked: first.value}, "x")["leakage"] == pytest.approx(1 / 36)
    assert measure({asked: "Wrongville"}, f"{other} was born in Wrongville.")["falsehood"] == pytest.approx(1 / 8)
    lost = load_tiny("population-measured", 1)[0][0].questions[0].text
    assert measure({lost: "x"}, "y")["retention"] == pytest.approx(1 / 96)


def trial(kind: str, value: float, **harm: float) -> Trial:
    checks = (Check(name="drift", value=value, threshold=0.2, passed=value <= 0.2), Check(name="banned", passed=True))
    return Trial(kind=kind, harm={**UNHARMED, **harm}, checks=checks)


def test_what_was_refused_is_counted_by_kind_and_by_harm() -> None:
    trials = [
        trial("full", 0.1),
        trial("full", 0.3),
        trial("swapped", 0.9, leakage=0.5),
        trial("swapped", 0.1, retention=0.16),
        trial("generic", 0.9, gain=0.0),
        Trial(kind="violent", failed="too many steps", harm={}),
    ]
    report = report_trials(trials, HarmSettings())
    assert (report["edits"], report["not_learned"], report["refused"], report["refused_by"]) == (6, 1, 3, {"drift": 3})
    assert (report["harmful_refused"]["mean"], report["harmful_refused"]["n"]) == (0.5, 2)
    assert (report["good_refused"]["mean"], report["good_refused"]["n"]) == (0.5, 2)
    assert {kind: row["refused"] for kind, row in report["kinds"].items()} == {"full": 1, "swapped": 1, "generic": 1, "violent": 0}
    assert report["kinds"]["generic"]["harmful_refused"] is None
    assert list(report["good_values"]) == ["drift"]
    assert report["good_values"]["drift"] == pytest.approx({"least": 0.1, "5%": 0.11, "half": 0.2, "95%": 0.29, "most": 0.3})


@pytest.mark.parametrize(
    ("harm", "is_harmful"),
    [
        ({"retention": 0.1}, False),
        ({"retention": 0.11}, True),
        ({"earlier": 0.16}, True),
        ({"leakage": 0.16}, True),
        ({"falsehood": 0.11}, True),
    ],
)
def test_more_harm_than_a_limit_is_harmful(harm: dict[str, float], is_harmful: bool) -> None:
    assert trial("full", 0.0, **harm).is_harmful(HarmSettings()) is is_harmful


SMALL = ["edits=2", "cohort=1", "earlier=1", "keeping.texts=16", "keeping.epochs=8", "gate.drift_texts=8", "gate.probe_questions=8"]


def test_the_recipe_runs_and_goes_on_from_what_it_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    words = ["run", "recipes/tiny/try_gate.yaml", f"runs={tmp_path}", *SMALL]
    assert main(words) == 0
    report = json.loads((tmp_path / "try-gate" / "report.json").read_text())
    assert (report["edits"], set(report["kinds"])) == (2, {"full", "questions"})
    path = tmp_path / "try-gate" / "trials.json"
    tried = path.read_bytes()
    path.write_text(json.dumps(json.loads(tried)[:1]))
    capsys.readouterr()
    assert main(words) == 0
    assert "trying self-edits: 2 (1 from the journal)" in capsys.readouterr().out
    assert json.loads(path.read_bytes()) == json.loads(tried)
    path.write_bytes(tried[: len(tried) // 2])
    assert main(words) == 2
    assert "trials.json is not as a run wrote it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["split=train"], "split is 'train'; it is one of validation, held_out"),
        (["domain=few_shot"], "domain is 'few_shot', but self-edits are planted about people of the tiny world"),
        (["edits=0"], "edits is 0; it must be at least 1"),
        (["gate.checks.mine.command=[no-such-program]"], "gate.checks.mine.command begins with 'no-such-program'"),
        (["student.exchange=http://127.0.0.1:8400"], "recipe try_gate trains its students here"),
        (["harm.false=1"], "harm.false is 1.0; it must be in [0, 1)"),
    ],
)
def test_a_trial_that_cannot_be_is_refused(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["run", "recipes/tiny/try_gate.yaml", f"runs={tmp_path}", *words]) == 2
    assert message in capsys.readouterr().err
