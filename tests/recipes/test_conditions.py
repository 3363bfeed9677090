from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from scripted import CARD, RIGHT, TASK, WRONG, reward

from protocol.errors import InnerLoopFailed
from protocol.exchange import InProcessExchange
from protocol.journal import Journal
from protocol.messages import (
    Answers,
    AskRequest,
    Change,
    CommitRequest,
    Context,
    Passage,
    Question,
    Refusal,
    Reward,
    RewardRequest,
    SelfEdit,
    StudentCard,
    VersionCard,
    measurement_key,
)
from recipes.conditions import Edits, Effect, HeldOut, Row, Tried, match, side_effects, try_conditions
from recipes.domains import DOMAINS

DOMAIN = DOMAINS["knowledge"]
ADA = Context(title="Ada", passage="Ada plays the harp.", questions=(Question(text="What does Ada play?", answers=("harp",)),))
BOB = Context(title="Bob", passage="Bob plays the lute.", questions=(Question(text="What does Bob play?", answers=("lute",)),))
KNOWN = Context(title="Eve", questions=(Question(text="What does Eve play?", answers=("gong",)),))
BASELINES = ["passage_only", "matched_passage", "matched_paraphrase", "in_context", "retrieval", "weights_and_retrieval", "other_context"]


class Pupil:
    """Learns whatever has at least one example, trains a token per character and seed, and remembers what it was asked to do.

    It knows without learning what is in view: a passage with the answer, 50 tokens long.
    """

    def __init__(self) -> None:
        self.requests: list[RewardRequest] = []
        self.commits: list[CommitRequest] = []

    def describe(self) -> StudentCard:
        return CARD

    def score(self, requests: Sequence[RewardRequest], known: Collection[str] = ()) -> Iterator[Sequence[Reward | Refusal]]:
        self.requests += requests
        return ([self._reward(request)] for request in requests)

    def _reward(self, request: RewardRequest) -> Reward:
        change = Change(base=WRONG, adapted=(RIGHT if request.edit.examples else WRONG,) * len(request.seeds))
        trained_tokens = len(request.seeds) * sum(len(example.completion) for example in request.edit.examples)
        return reward(request, change, 1.0, seconds=1.0, trained_tokens=trained_tokens)

    def ask(self, requests: Sequence[AskRequest]) -> Iterator[Sequence[Answers | Refusal]]:
        for request in requests:
            (question,) = request.context.questions
            seen = [passage.text for passage in question.found] + [request.context.passage] * request.in_view
            outcomes = RIGHT if any(question.answers[0] in text for text in seen) else WRONG
            key, tokens = measurement_key(CARD, request), 10 + 50 * len(seen)
            yield [Answers(key=key, request=request.id, student=CARD.fingerprint, outcomes=outcomes, read_tokens=tokens)]

    def commit(self, request: CommitRequest) -> VersionCard:
        self.commits.append(request)
        return VersionCard(
            key=measurement_key(CARD, request),
            request=request.id,
            parent="1" * 32,
            fingerprint="2" * 32,
            path="nowhere",
            changes=tuple(Change(base=WRONG, adapted=(RIGHT,)) for _ in request.lessons),
            seconds=4.0,
            trained_tokens=100,
        )


def held_out(**changes: object) -> HeldOut:
    return HeldOut(DOMAIN, TASK, [ADA, BOB], {}, [KNOWN], BASELINES, repeats=2, seed=0, **changes)  # type: ignore[arg-type]


def edits(*texts: str) -> Edits:
    return [[DOMAIN.parse(text, ADA) if text else None] for text in texts]


def try_all(test: HeldOut, folder: Path, teachers: dict[str, Edits]) -> tuple[Pupil, dict[str, Row]]:
    pupil = Pupil()
    tried = try_conditions(InProcessExchange(pupil), test, teachers, edits("A harp.", "A lute."), "s", Journal(folder / "journal.jsonl"))
    assert tried.base == [WRONG, WRONG]
    return pupil, dict(tried.rows)


def test_every_condition_is_tried_and_matched_ones_get_the_compute_of_the_last_teacher(tmp_path: Path) -> None:
    pupil, rows = try_all(held_out(), tmp_path, {"first": edits("Ada.", ""), "last": edits("Ada plays.", "Bob plays!!")})
    assert list(rows) == [*BASELINES[:3], "first", "last", *BASELINES[3:]]
    matched = [r.edit.update.tokens for r in pupil.requests if r.edit.update.tokens]
    assert matched == [10, 11, 10, 11]
    assert rows["first"][1] == [None]
    assert [[type(effect) for effect in own] for own in rows["in_context"]] == [[Effect], [Effect]]
    other = [r.edit for r in pupil.requests if r.context == BOB and r.edit == edits("Ada plays.")[0][0]]
    assert other, "the other context's self-edit was tried on Bob"


def test_together_one_adapter_learns_all_contexts_once_per_repeat(tmp_path: Path) -> None:
    several: Edits = [[*edits("Ada.")[0], *edits("Ada plays.")[0]], [None, None]]
    test = replace(held_out(together=True, candidates=2), baselines=BASELINES[:4])
    pupil, rows = try_all(test, tmp_path, {"last": several})
    assert len(pupil.commits) == 2 * 4
    learned = [request for request in pupil.commits if len(request.lessons) == 3]
    assert [lesson.edit for lesson in learned[0].lessons][2] == SelfEdit()
    assert len({request.seed for request in learned}) == 2
    budgets = {lesson.edit.update.tokens for request in pupil.commits for lesson in request.lessons}
    assert budgets == {None, 100}
    [effect] = rows["last"][0]
    assert isinstance(effect, Effect)
    assert (len(effect.change.adapted), effect.trained_tokens, effect.seconds) == (2, 50.0, 2.0)


def test_alone_every_self_edit_has_inner_loops_of_its_own(tmp_path: Path) -> None:
    last: Edits = [[*edits("Ada.")[0], *edits("Ada plays.")[0], None], [None, *edits("Bob.")[0], *edits("Bob plays!!")[0]]]
    test = replace(held_out(candidates=3), baselines=["passage_only", "matched_passage", "other_context"])
    pupil, rows = try_all(test, tmp_path, {"last": last})
    learned = [request for request in pupil.requests if request.edit in [edit for own in last for edit in own]]
    told = [(request.context.title, request.edit.examples[0].completion, len(request.probes)) for request in learned[:4]]
    assert told == [("Ada", "Ada.", 2), ("Ada", "Ada plays.", 0), ("Bob", "Bob.", 2), ("Bob", "Bob plays!!", 0)]
    assert learned[0].seeds == learned[1].seeds, "common random numbers"
    assert [[effect and effect.trained_tokens for effect in own] for own in rows["last"]] == [[4.0, 10.0, None], [None, 4.0, 11.0]]
    assert [len(own) for own in rows["passage_only"]] == [1, 1]
    assert rows["other_context"][0] == [None], "the first of the next context's"
    assert [(request.context.title, request.edit.examples[0].completion) for request in learned[4:]] == [("Bob", "Ada.")]
    assert [request.edit.update.tokens for request in pupil.requests if not request.edit.examples] == [None, None, 5, 5], "14/3 and 15/3"


def test_paraphrases_are_as_many_as_self_edits_and_match_their_mean() -> None:
    paraphrases: Edits = [[*edits("A harp.")[0], *edits("The harp.")[0]], [None, *edits("A lute.")[0]]]
    change = Change(base=WRONG, adapted=(RIGHT,))
    learned: Row = [[Effect(change, trained_tokens=30.0), Effect(change, trained_tokens=10.0)], [Effect(change, trained_tokens=30.0), "no"]]
    matched = match(paraphrases, learned, together=False)
    assert [[edit and edit.update.tokens for edit in own] for own in matched] == [[20, 20], [None, 15]]


def test_where_nothing_was_learned_there_is_nothing_to_match() -> None:
    assert match(edits("Ada.", "Bob."), [["refused"], [None]], together=False) == [[None], [None]]


def test_an_update_that_fails_is_refused_and_the_others_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Pupil, request: CommitRequest) -> VersionCard:
        raise InnerLoopFailed("training diverged")

    monkeypatch.setattr(Pupil, "commit", fail)
    _, rows = try_all(replace(held_out(together=True), baselines=["in_context"]), tmp_path, {"last": edits("Ada.", "Bob.")})
    assert rows["last"] == [["training diverged"]] * 2
    assert isinstance(rows["in_context"][0][0], Effect)


def test_leakage_asks_about_another_context_and_counts_this_ones_answers() -> None:
    leak, retained = side_effects(held_out(), 0)
    assert leak.questions == (Question(text="What does Bob play?", answers=("harp",)),)
    assert leak.passage == ""
    assert retained == KNOWN
    assert side_effects(held_out(), 1)[0].questions == (Question(text="What does Ada play?", answers=("lute",)),)


def look_up_all(folder: Path, last: Edits, **changes: object) -> tuple[Pupil, Tried]:
    pupil, test = Pupil(), replace(held_out(**changes), baselines=["in_context", "retrieval", "weights_and_retrieval"])
    return pupil, try_conditions(InProcessExchange(pupil), test, {"last": last}, None, "s", Journal(folder / "journal.jsonl"))


def test_questions_are_looked_up_in_a_store_of_all_contexts(tmp_path: Path) -> None:
    pupil, tried = look_up_all(tmp_path, edits("Ada plays.", "Bob."))
    assert [effect.change for (effect,) in tried.rows["retrieval"] if isinstance(effect, Effect)] == [
        Change(base=WRONG, adapted=(RIGHT,))
    ] * 2
    assert tried.found == [1.0, 1.0]
    assert tried.read_tokens == {"no_edit": 10, "last": 10, "in_context": 60, "retrieval": 60, "weights_and_retrieval": 60}
    first, again = (request for request in pupil.requests if request.context.title == "Ada")
    assert again.context.questions[0].found == (Passage(title="Ada", text="Ada plays the harp."),)
    assert (first.edit, first.seeds) == (again.edit, again.seeds), "the adapter is the same, with the store or without"


def test_where_another_passage_is_found_the_share_says_so(tmp_path: Path) -> None:
    strange = ADA.model_copy(update={"questions": (Question(text="What is Bob's friend's instrument?", answers=("harp",)),)})
    pupil, test = Pupil(), replace(held_out(), contexts=[strange, BOB], baselines=["retrieval"])
    tried = try_conditions(InProcessExchange(pupil), test, {"last": edits("", "")}, None, "s", Journal(tmp_path / "journal.jsonl"))
    assert tried.found == [1.0, 1.0], "its topic is Ada"
    bare = replace(test, contexts=[strange.model_copy(update={"title": ""}), BOB])
    tried = try_conditions(InProcessExchange(pupil), bare, {"last": edits("", "")}, None, "s", Journal(tmp_path / "journal.jsonl"))
    assert tried.found == [0.0, 1.0]
    assert [own[0].change.adapted for own in tried.rows["retrieval"] if isinstance(own[0], Effect)] == [(WRONG,), (RIGHT,)]


@pytest.mark.parametrize("together", [False, True])
def test_what_was_not_learned_leaves_the_student_with_the_store_alone(
    tmp_path: Path, together: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Pupil, request: CommitRequest) -> VersionCard:
        raise InnerLoopFailed("training diverged")

    monkeypatch.setattr(Pupil, "commit", fail)
    _, tried = look_up_all(tmp_path, edits("", ""), together=together)
    assert tried.rows["weights_and_retrieval"] == tried.rows["retrieval"] == [[Effect(Change(base=WRONG, adapted=(RIGHT,)))]] * 2


def test_what_was_learned_is_told_against_the_student_without_a_store(tmp_path: Path) -> None:
    pupil, tried = look_up_all(tmp_path, edits("Ada plays.", "Bob."), together=True)
    both = [effect for (effect,) in tried.rows["weights_and_retrieval"] if isinstance(effect, Effect)]
    assert [(effect.change, effect.trained_tokens) for effect in both] == [(Change(base=WRONG, adapted=(RIGHT, RIGHT)), 50.0)] * 2
    learned = [[lesson.context.questions[0].found for lesson in request.lessons] for request in pupil.commits]
    assert [[len(found) for found in own] for own in learned] == [[0, 0], [0, 0], [1, 1], [1, 1]]


@pytest.mark.parametrize(
    "left_out", ["passage_only", "matched_passage", "in_context", "retrieval", "weights_and_retrieval", "other_context"]
)
def test_a_baseline_that_is_not_asked_for_is_not_tried(tmp_path: Path, left_out: str) -> None:
    test = HeldOut(DOMAIN, TASK, [ADA, BOB], {}, [], [name for name in BASELINES if name != left_out], repeats=1, seed=0)
    _, rows = try_all(test, tmp_path, {"last": edits("Ada.", "Bob.")})
    assert left_out not in rows
