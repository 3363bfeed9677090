import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from protocol.domain import Domain
from protocol.errors import InnerLoopFailed, InvalidInput
from protocol.messages import (
    Change,
    CommitRequest,
    Context,
    Demonstration,
    Example,
    Lesson,
    Outcome,
    Question,
    Refusal,
    Reward,
    RewardRequest,
    SelfEdit,
    Task,
    VersionCard,
)
from recipes.adapt_student import report_versions
from recipes.base_settings import RecipeSettings
from recipes.config import load_recipe
from recipes.domains import open_domain
from recipes.domains.augmentations import VIEWS, Augmentations
from recipes.domains.expansion import count_tasks
from recipes.domains.few_shot import FewShot
from recipes.domains.grids import Grid, from_text, write_grid, write_output
from recipes.domains.settings import GridSettings
from recipes.graders import GRADERS
from recipes.graders.words import Verbatim
from recipes.inputs import choose_task
from student.settings import StudentSettings
from student.student import Student

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "tiny" / "few_shot.yaml"
CONTEXT = Context(
    title="harp",
    demonstrations=(Demonstration(input="10\n01", output="2"), Demonstration(input="3", output="44")),
    questions=(Question(text="12\n34", answers=("56\n78",)),),
)
NO_AUGMENTATION = SelfEdit()
NO_GRIDS = CONTEXT.model_copy(update={"demonstrations": (Demonstration(input="12\n3", output="4"),) * 2})
INSTRUCTION = (
    "Figure out the underlying transformation in the following examples and apply it to the test case. Here are some examples from this "
    "transformation, your answer must follow the format.\nThe input-output grids are provided as python arrays:\n"
)


def domain(**changes: Any) -> FewShot:
    return FewShot(GridSettings(**changes))


def grid_of(text: str) -> Grid:
    grid = from_text(text)
    assert grid is not None
    return grid


def answer(text: str, view: int) -> str:
    """What a student writes that has a grid in mind and sees the task in a view."""
    return write_grid(VIEWS[view].apply(grid_of(text)), "arrays", "o") + "#"


def read(of: Domain, answers: Sequence[str], context: Context = CONTEXT) -> tuple[Outcome, ...]:
    (outcomes,) = of.read_answers([context], [answers], Verbatim())
    return outcomes


def test_it_is_a_domain() -> None:
    known: Domain = domain()
    assert (known.name, known.floor, known.default_grader, known.closed_book) == ("few_shot", 0.0, "verbatim", False)


def test_the_teacher_is_asked_in_the_published_words() -> None:
    assert domain().prompt(CONTEXT, "directives") == (
        "Input:\n1 0\n0 1\n\nOutput:\n2\n\nInput:\n3\n\nOutput:\n4 4\n\n------\n\n"
        """You are configuring a model training pipeline by selecting from predefined tools.

You must make two decisions:

1. **Data Generation Tools** — For each of the following, choose true or false:
    - use_basic_augmentations
    - use_size_augmentations
    - use_chain_augmentations
    - use_repeat_augmentations

2. **Training Configuration** — Choose one of:
    - "train_using_all_tokens"
    - "train_using_output_tokens"

Also specify:
    - learning_rate (float)
    - num_train_epochs (integer)

### Output Format

Respond with a valid JSON object. Do not include any explanation, markdown, or extra text. Use lowercase `true`/`false` for booleans and """
        """ensure correct JSON syntax.

Example output:

{
  "data_generation": {
    "use_basic_augmentations": ...,
    "use_size_augmentations": ...,
    "use_chain_augmentations": ...,
    "use_repeat_augmentations": ...
  },
  "training": {
    "strategy": ...,
    "learning_rate": ...,
    "num_train_epochs": ...
  }
}
"""
    )


def test_the_teacher_does_not_see_the_questions() -> None:
    assert domain().prompt(CONTEXT, "directives") == domain().prompt(CONTEXT.model_copy(update={"questions": ()}), "directives")


def test_each_demonstration_is_a_test_in_turn_and_then_stands_alone() -> None:
    made = [(example.prompt, example.completion) for example in domain().expand(CONTEXT, NO_AUGMENTATION, seed=0)]
    assert sorted(made) == sorted(
        [
            (f"{INSTRUCTION}[[3]] -> [[4 4]]#\n\n[[1 0]\n [0 1]] -> ", "[[2]]#"),
            (f"{INSTRUCTION}[[1 0]\n [0 1]] -> [[2]]#\n\n[[3]] -> ", "[[4 4]]#"),
            (f"{INSTRUCTION}\n[[1 0]\n [0 1]] -> ", "[[2]]#"),
            (f"{INSTRUCTION}\n[[3]] -> ", "[[4 4]]#"),
        ]
    )


def test_cells_are_expanded_in_their_own_words() -> None:
    made = [(example.prompt, example.completion) for example in domain(notation="cells").expand(CONTEXT, NO_AUGMENTATION, seed=0)]
    assert ("in 1x1 i3r0c0 out 1x2 o4r0c0 o4r0c1\nin 2x2 i1r0c0 i0r0c1 i0r1c0 i1r1c1 out", " 1x1 o2r0c0") in made


def test_directives_choose_the_augmentations() -> None:
    chosen = SelfEdit(directives={"use_size_augmentations": True})
    assert domain().count(CONTEXT, chosen, seed=0) == {"leave_1_out": 8, "leave_2_out": 8}
    prompts = [example.prompt for example in domain().expand(CONTEXT, chosen, seed=0)]
    assert f"{INSTRUCTION}[[3 3]\n [3 3]] -> [[4 4 4 4]\n [4 4 4 4]]#\n\n[[1 1 0 0]\n [1 1 0 0]\n [0 0 1 1]\n [0 0 1 1]] -> " in prompts


def test_equal_seeds_give_equal_sequences() -> None:
    chosen = SelfEdit(directives={"use_basic_augmentations": True})
    assert domain().expand(CONTEXT, chosen, 1) == domain().expand(CONTEXT, chosen, 1)
    assert domain().expand(CONTEXT, chosen, 1) != domain().expand(CONTEXT, chosen, 2)


def test_there_are_no_more_and_no_larger_sequences_than_allowed() -> None:
    assert len(domain(max_sequences=3).expand(CONTEXT, NO_AUGMENTATION, 0)) == 3
    assert [example.completion for example in domain(max_side=1).expand(CONTEXT, NO_AUGMENTATION, 0)] == []


def test_the_student_is_asked_with_the_demonstrations_in_view() -> None:
    assert domain().ask(CONTEXT) == [f"{INSTRUCTION}[[1 0]\n [0 1]] -> [[2]]#\n[[3]] -> [[4 4]]#\n\n[[1 2]\n [3 4]] -> "]


def test_with_eight_votes_each_test_is_asked_in_eight_views() -> None:
    context = CONTEXT.model_copy(update={"questions": (*CONTEXT.questions, Question(text="9"))})
    asked = domain(votes=8).ask(context)
    assert [prompt.rpartition("\n\n")[2] for prompt in asked[:8]] == [
        "[[1 2]\n [3 4]] -> ",
        "[[2 4]\n [1 3]] -> ",
        "[[4 3]\n [2 1]] -> ",
        "[[3 1]\n [4 2]] -> ",
        "[[1 3]\n [2 4]] -> ",
        "[[3 4]\n [1 2]] -> ",
        "[[4 2]\n [3 1]] -> ",
        "[[2 1]\n [4 3]] -> ",
    ]
    assert asked[1] == f"{INSTRUCTION}[[0 1]\n [1 0]] -> [[2]]#\n[[3]] -> [[4]\n [4]]#\n\n[[2 4]\n [1 3]] -> "
    assert [prompt.rpartition("\n\n")[2] for prompt in asked[8:]] == ["[[9]] -> "] * 8


def test_an_answer_is_right_if_its_grid_is() -> None:
    (right,) = read(domain(), ["[[5 6]\n [7 8]]#\nand so on"])
    (wrong,) = read(domain(), ["[[5 6]\n [7 9]]#"])
    assert right == Outcome(answer="56\n78", correct=True)
    assert wrong == Outcome(answer="56\n79", correct=False)


@pytest.mark.parametrize("text", ["56\n78", "", "I do not know.", "[[5 6]\n [7 8]"])
def test_an_answer_in_another_notation_is_no_grid_and_wrong(text: str) -> None:
    assert read(domain(), [text]) == (Outcome(answer=f"no grid: {text}", correct=False),)


def test_of_a_long_answer_without_a_grid_the_beginning_is_kept() -> None:
    (outcome,) = read(domain(), ["x" * 500_000])
    assert outcome.answer == "no grid: " + "x" * 2000


def test_a_question_without_answers_has_no_verdict() -> None:
    context = CONTEXT.model_copy(update={"questions": (Question(text="1"), *CONTEXT.questions)})
    assert [outcome.correct for outcome in read(domain(), ["[[1]]#", "[[5 6]\n [7 8]]#"], context)] == [None, True]
    voted = read(domain(votes=8, attempts=2), [answer("1", 0), answer("2", 1)] * 8, context)
    assert [outcome.correct for outcome in voted] == [None, False]


def test_a_turned_answer_votes_for_what_it_was_before_the_turn() -> None:
    answers = ["[[0]]#", "[[6 8]\n [5 7]]#", "[[8 7]\n [6 5]]#", *["no grid"] * 5]
    assert read(domain(votes=8), answers) == (Outcome(answer="56\n78", correct=True),)


def test_the_majority_wins_over_all_views() -> None:
    answers = [answer("0" if view in (0, 1, 2) else "56\n78", view) for view in range(8)]
    assert read(domain(votes=8), answers)[0].answer == "56\n78"


def test_ties_keep_the_earlier_grid() -> None:
    answers = [answer(text, view) for view, text in enumerate(["12", "34", "34", "12", "5", "6", "7", "8"])]
    assert domain(votes=8).vote(answers) == ["12"]
    assert domain(votes=8, attempts=2).vote(answers) == ["12", "34"]


def test_what_is_no_grid_does_not_vote() -> None:
    answers = [*["no grid"] * 6, answer("12", 6), "[[1 2]\n [3]]"]
    assert domain(votes=8).vote(answers) == ["12"]
    assert domain(votes=8, attempts=2).vote(answers) == ["12"]
    assert domain(votes=8, attempts=2).vote(["what?"] * 8) == ["no grid: what?"]


def test_of_two_attempts_either_may_be_right() -> None:
    answers = [answer("56\n78" if view in (3, 6) else "0" if view < 5 else "1", view) for view in range(8)]
    assert read(domain(votes=8), answers) == (Outcome(answer="0", correct=False),)
    assert read(domain(votes=8, attempts=2), answers) == (Outcome(answer="0\n\n56\n78", correct=True),)
    neither = [answer("0" if view < 5 else "1", view) for view in range(8)]
    assert read(domain(votes=8, attempts=2), neither) == (Outcome(answer="0\n\n1", correct=False),)


def test_answers_go_to_their_own_questions() -> None:
    two = CONTEXT.model_copy(update={"questions": (Question(text="1", answers=("1",)), Question(text="2", answers=("2",)))})
    one = CONTEXT.model_copy(update={"questions": (Question(text="3", answers=("3",)),)})
    of = domain(votes=2, attempts=2)
    answers = [["[[1]]", "[[1]]", "[[0]]", "[[2]]"], ["[[4]]", "[[5]]"]]
    read_back = of.read_answers([two, one], answers, Verbatim())
    assert [[(outcome.answer, outcome.correct) for outcome in outcomes] for outcomes in read_back] == [
        [("1", True), ("0\n\n2", True)],
        [("4\n\n5", False)],
    ]


def test_only_a_task_whose_every_test_is_solved_pays() -> None:
    right, wrong = Outcome(answer="1", correct=True), Outcome(answer="2", correct=False)
    assert domain().value((wrong, wrong), (right, right)) == 1.0
    assert domain().value((wrong, wrong), (right, wrong)) == 0.0
    assert domain().value((right, right), (right, right)) == 1.0
    assert domain().value((right,), (wrong,)) == 0.0


def test_cells_that_are_right_are_measured() -> None:
    golds = [["12\n34"], ["12\n34"], ["12\n34"], ["12\n34"]]
    assert domain().measure(["12\n34", "12\n00", "12", "no grid: 12\n34"], golds) == {"cells": 0.375}
    assert domain().measure(["12\n00\n\n12\n34"], [["12\n34"]]) == {"cells": 0.5}


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({}, "few_shot"),
        ({"votes": 1, "max_side": 30}, "few_shot"),
        ({"notation": "cells"}, "few_shot(notation=cells)"),
        ({"votes": 8, "attempts": 2}, "few_shot(attempts=2, votes=8)"),
        ({"max_sequences": 12, "max_side": 6, "notation": "cells"}, "few_shot(notation=cells, max_side=6, max_sequences=12)"),
    ],
)
def test_the_name_says_what_is_not_as_published(changes: dict[str, Any], name: str) -> None:
    assert domain(**changes).name == name
    _, task = choose_task(RecipeSettings(domain="few_shot", grids=GridSettings(**changes)))
    assert task == Task(domain=name, domain_version=1, grader="verbatim", grader_version=1)


def test_the_largest_answer_fits() -> None:
    assert domain().answer_tokens == 1928
    assert domain(notation="cells", max_side=6).answer_tokens == 38
    for side in (1, 2, 6, 30):
        of = np.full((side, side), 9, dtype=np.int8)
        assert len(write_output(of, "arrays")) < domain(max_side=side).answer_tokens
        assert len(write_output(of, "cells").split()) < domain(max_side=side, notation="cells").answer_tokens


def test_tasks_with_larger_grids_are_left_out_and_counted_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair, large = {"input": [[1]], "output": [[2]]}, {"input": [[1]], "output": [[2, 2, 2]]}
    tasks = {
        "harp": {"train": [pair, pair], "test": [pair]},
        "lute": {"train": [pair, large], "test": [pair]},
        "viol": {"train": [pair, pair], "test": [large]},
    }
    path = tmp_path / "challenges.json"
    path.write_text(json.dumps(tasks))
    loaded, references = domain(max_side=2).load(str(path), "", None)
    assert ([task.title for task in loaded], references) == (["harp"], {})
    assert domain(max_side=2).load(str(path), "", None) == (loaded, references)
    told = f"note: {path}: 2 of 3 tasks have grids above grids.max_side, which is 2; they are left out\n"
    assert capsys.readouterr() == ("", told)
    path.write_text(json.dumps({"lute": tasks["lute"]}))
    with pytest.raises(InvalidInput, match=r"1 of 1 tasks have grids above grids\.max_side, which is 2; raise it"):
        domain(max_side=2).load(str(path), "", None)


STRANGE = [
    (
        SelfEdit(directives={"use_magic": True}),
        "directives.use_magic is True; directives are use_basic_augmentations, use_size_augmentations, "
        "use_chain_augmentations, use_repeat_augmentations, each true or false",
    ),
    (SelfEdit(directives={"use_size_augmentations": 1}), "directives.use_size_augmentations is 1; directives are"),
    (SelfEdit(directives={"use_size_augmentations": "true"}), "directives.use_size_augmentations is 'true'; directives are"),
    (SelfEdit(examples=(Example(completion="[[1]]"),)), "the self-edit has examples, but in this domain the demonstrations are"),
]


@pytest.mark.parametrize(("edit", "reason"), STRANGE)
def test_a_strange_self_edit_is_not_expanded(edit: SelfEdit, reason: str) -> None:
    with pytest.raises(InnerLoopFailed) as caught:
        domain().expand(CONTEXT, edit, 0)
    assert reason in str(caught.value)


def test_a_context_without_grids_is_neither_expanded_nor_asked() -> None:
    reason = r"'12\\n3' is no grid; it must be lines of digits, equally long, at most 30 by 30"
    with pytest.raises(InnerLoopFailed, match=reason):
        domain().expand(NO_GRIDS, NO_AUGMENTATION, 0)
    with pytest.raises(InnerLoopFailed, match=reason):
        domain().ask(NO_GRIDS)
    with pytest.raises(InnerLoopFailed, match="'Who\\?' is no grid"):
        domain().ask(CONTEXT.model_copy(update={"questions": (Question(text="Who?"),)}))


def test_many_demonstrations_are_refused_before_they_multiply() -> None:
    pairs = tuple(Demonstration(input=str(n % 10), output="1") for n in range(1000))
    for work in (domain().expand, domain().count):
        with pytest.raises(InnerLoopFailed, match="the context has 1000 demonstrations, more than 20; give fewer"):
            work(CONTEXT.model_copy(update={"demonstrations": pairs}), NO_AUGMENTATION, 0)


def test_a_task_that_is_too_long_to_be_written_is_refused() -> None:
    large = "\n".join(["0" * 30] * 30)
    pairs = tuple(Demonstration(input=large[:-1] + str(n % 10), output=large[:-2] + str(n)) for n in range(10, 30))
    with pytest.raises(InnerLoopFailed, match=r"is too long \(string should have at most 200000 characters\); give fewer demonstrations"):
        domain(notation="cells").expand(Context(title="harp", demonstrations=pairs), NO_AUGMENTATION, 0)


@pytest.mark.parametrize("group", ["basic", "size", "chain", "repeat"])
def test_a_directive_chooses_the_group_of_its_name(group: str) -> None:
    pairs = (
        Demonstration(input="12\n30", output="1"),
        Demonstration(input="31\n00", output="2"),
        Demonstration(input="11\n10", output="3"),
    )
    context, edit = Context(demonstrations=pairs), SelfEdit(directives={f"use_{group}_augmentations": True})
    solved = [(grid_of(pair.input), grid_of(pair.output)) for pair in pairs]
    assert domain().count(context, edit, 0) == count_tasks(solved, Augmentations(**{group: True}))


@pytest.fixture(scope="module")
def student(llama: str, tmp_path_factory: pytest.TempPathFactory) -> Student:
    of = domain(max_side=2, votes=8, attempts=2)
    settings = StudentSettings(model=llama, rank=4, alpha=8, learning_rate=1e-3, epochs=1, batch_size=4)
    return Student(settings, {of.name: of}, GRADERS, tmp_path_factory.mktemp("student"))


def request(context: Context = CONTEXT, edit: SelfEdit = NO_AUGMENTATION) -> RewardRequest:
    task = Task(domain="few_shot(attempts=2, votes=8, max_side=2)", domain_version=1, grader="verbatim", grader_version=1)
    return RewardRequest(task=task, context=context, edit=edit, seeds=(1,))


def score(student: Student, of: RewardRequest) -> Reward | Refusal:
    ((result,),) = student.score([of])
    return result


def test_a_student_is_rewarded_for_all_or_nothing(student: Student) -> None:
    reward = score(student, request())
    assert isinstance(reward, Reward)
    assert reward.value == 0.0
    assert [outcome.correct for outcome in (*reward.change.base, *reward.change.adapted[0])] == [False, False]
    assert reward.change.base[0].answer.startswith("no grid: ")


@pytest.mark.parametrize(
    ("of", "reason"),
    [
        *((request(edit=edit), reason) for edit, reason in STRANGE),
        (request(NO_GRIDS), "'12\\n3' is no grid"),
        (request(CONTEXT.model_copy(update={"demonstrations": ()})), "nothing to train on"),
    ],
)
def test_what_is_strange_is_refused_by_the_student_with_the_reason(student: Student, of: RewardRequest, reason: str) -> None:
    refusal = score(student, of)
    assert isinstance(refusal, Refusal)
    assert reason in refusal.reason
    assert not refusal.ungraded


def test_a_report_has_each_question_once_however_often_it_was_asked() -> None:
    of = domain(votes=8)
    outcomes = tuple(Outcome(answer="56\n7" + end, correct=end == "8") for end in "98")
    lesson = Lesson(context=CONTEXT, edit=NO_AUGMENTATION)
    task = Task(domain=of.name, domain_version=1, grader="verbatim", grader_version=1)
    card = VersionCard(
        key="0" * 32,
        request=CommitRequest(task=task, lessons=(lesson,), seed=0).id,
        parent="0" * 32,
        fingerprint="0" * 32,
        path="version",
        changes=(Change(base=outcomes[:1], adapted=(outcomes[1:],)),),
        seconds=0,
        trained_tokens=0,
    )
    report = report_versions([(card, [lesson])], of)
    assert [(row["prompt"].endswith("[[1 2]\n [3 4]] -> "), row["correct_before"], row["correct_after"]) for row in report["answers"]] == [
        (True, False, True)
    ]
    assert report["metrics"] == {"before": {"cells": 0.75}, "after": {"cells": 1.0}}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["grids.attempts=2"], "grids.attempts is 2, but grids.votes is 1, and one vote names one grid; set grids.votes=8"),
        (["grids.attempts=0"], "grids.attempts is 0; it must be at least 1"),
        (["grids.attempts=3", "grids.votes=8"], "grids.attempts is 3; it must be at most 2"),
        (["grids.votes=0"], "grids.votes is 0; it must be at least 1"),
        (["grids.votes=9"], "grids.votes is 9; it must be at most 8"),
        (["grids.max_side=0"], "grids.max_side is 0; it must be at least 1"),
        (["grids.max_side=31"], "grids.max_side is 31; it must be at most 30"),
        (["grids.max_sequences=0"], "grids.max_sequences is 0; it must be at least 1"),
        (["grids.notation=words"], "grids.notation"),
        (["grids.side=3"], "unknown key 'grids.side'"),
    ],
)
def test_settings_out_of_range_name_the_key_and_the_remedy(overrides: list[str], message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_recipe(RECIPE, overrides)
    assert message in str(caught.value)


def test_two_attempts_take_two_votes_or_more() -> None:
    settings = load_recipe(RECIPE, ["grids.attempts=2", "grids.votes=8", "grids.max_side=30"])
    told = open_domain(settings.domain, settings.grids).name
    assert told == "few_shot(notation=cells, attempts=2, votes=8, always_recolour=True, max_sequences=12)"
