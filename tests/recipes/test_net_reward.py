"""A self-edit pays for what it does elsewhere: for what it says of others, and for what it makes forget."""

from pathlib import Path

import pytest
from scripted import TASK, ScriptedStudent

from protocol.errors import InvalidInput
from protocol.exchange import InProcessExchange
from protocol.journal import Journal
from protocol.messages import Change, Context, Outcome, Question, Reward, RewardRequest
from recipes import experiment
from recipes.base_settings import DataSettings
from recipes.candidates import record_candidate
from recipes.config import load_recipe
from recipes.domains import DOMAINS
from recipes.loop_settings import LoopSettings, NetReward
from recipes.m_step import Outer, Trained
from recipes.net_reward import Elsewhere, open_elsewhere
from recipes.scoring import Scoring, score_candidates
from teacher.settings import FinetuneSettings, TeacherSettings

KNOWLEDGE = DOMAINS["knowledge"]
ADA = Context(
    title="Lives", passage="Ada Lovelace plays the harp.", questions=(Question(text="What does Ada Lovelace play?", answers=("harp",)),)
)
KNOWN = [Context(title=f"known {n}", questions=(Question(text="?", answers=("x",)),)) for n in range(5)]
TEXTS = ["it was Alan Turing", "it was Kurt Goedel"]


def elsewhere(leakage: float, retention: float) -> Elsewhere:
    return Elsewhere(NetReward(leakage=leakage, retention=retention), KNOWLEDGE, KNOWN, TEXTS, seed=0)


def outcomes(*correct: bool) -> tuple[Outcome, ...]:
    return tuple(Outcome(answer="", correct=right) for right in correct)


def test_questions_about_others_come_first_and_then_what_was_known() -> None:
    probes = elsewhere(1.0, 1.0).probes(ADA)
    others, known = probes[:2], probes[2:]
    assert [other.questions[0].answers for other in others] == [("harp",)] * 2
    assert all("Ada Lovelace" not in other.questions[0].text for other in others)
    assert all(context in KNOWN for context in known) and len(known) == 2
    assert elsewhere(1.0, 1.0).probes(ADA) == probes


def test_what_has_no_weight_is_not_asked() -> None:
    assert elsewhere(0.0, 0.0).probes(ADA) == []
    assert all(context in KNOWN for context in elsewhere(0.0, 1.0).probes(ADA))
    assert open_elsewhere(NetReward(), KNOWLEDGE, [ADA], 0) is None


def reward(request: RewardRequest, own: bool, leaked: bool, forgot: bool) -> Reward:
    """After one repeat."""
    student = ScriptedStudent(lambda request: Change(base=outcomes(False), adapted=(outcomes(own),)))
    (result,) = next(iter(student.score([request])))
    assert isinstance(result, Reward)
    probes = [
        Change(base=outcomes(True), adapted=(outcomes(not forgot),))
        if probe.title.startswith("known")
        else Change(base=outcomes(False), adapted=(outcomes(leaked),))
        for probe in request.probes
    ]
    return result.model_copy(update={"probes": tuple(probes)})


class Careless(ScriptedStudent):
    """Whose `everybody` makes it say of all what it learned of one, and whose `only` makes it forget."""

    def score(self, requests, known=(), take=None):  # type: ignore[no-untyped-def]
        for request in requests:
            text = request.edit.examples[0].completion
            yield [reward(request, "harp" in text, "everybody" in text, "only" in text)]


@pytest.mark.parametrize(
    ("leakage", "retention", "expected"),
    [
        (0.0, 0.0, [1.0, 1.0, 1.0, 0.0]),
        (0.5, 0.0, [1.0, 0.5, 1.0, 0.0]),
        (0.5, 0.25, [1.0, 0.5, 0.75, 0.0]),
        (3.0, 0.0, [1.0, -1.0, 1.0, 0.0]),
    ],
)
def test_rewards_and_accuracies_are_net(leakage: float, retention: float, expected: list[float], tmp_path: Path) -> None:
    texts = ["Ada plays the harp.", "everybody plays the harp.", "only the harp.", "Ada plays."]
    candidates = [record_candidate(KNOWLEDGE, ADA, text, "round-1", index, 0, "") for index, text in enumerate(texts)]
    scoring = Scoring(KNOWLEDGE, TASK, LoopSettings(), repeats=1, seed=0, elsewhere=elsewhere(leakage, retention))
    student = InProcessExchange(Careless(lambda request: None))
    scored = score_candidates(scoring, {"student": student}, [ADA], candidates, "round-1", Journal(tmp_path / "journal.jsonl"))
    assert [own.reward for own in scored] == expected
    assert [own.accuracies for own in scored] == [[1.0], [1.0 - leakage], [1.0 - retention], [0.0]]


def test_retention_without_anything_known_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"net\.retention is 1\.0, but net\.known\.source is empty"):
        load_recipe(Path("recipes/tiny/train_teacher.yaml"), ["net.retention=1"])
    assert DataSettings().source == ""


@pytest.mark.parametrize("override", ["net.leakage=-1", "net.leakage=.inf", "net.others=0", "net.others=33", "net.known_each=0"])
def test_weights_and_counts_out_of_range_are_refused(override: str) -> None:
    with pytest.raises(InvalidInput, match=override.split("=")[0].replace(".", r"\.")):
        load_recipe(Path("recipes/tiny/train_teacher.yaml"), [override])


@pytest.mark.parametrize("weighted", [True, False])
def test_an_experiment_has_a_control_on_plain_rewards_where_the_teachers_are_net(weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: dict[str, Outer] = {}

    def note(outer: Outer, team: object, contexts: object, folder: object, stage: str) -> Trained:
        trained[stage] = outer
        return Trained(outer.teacher)

    monkeypatch.setattr(experiment, "train_teacher", note)
    net = elsewhere(1.0, 1.0) if weighted else None
    scoring = Scoring(KNOWLEDGE, TASK, LoopSettings(), repeats=1, seed=0, elsewhere=net)
    outer = Outer(scoring, {}, TeacherSettings(), FinetuneSettings(), deepspeed=None)
    _, controls = experiment.train_teachers(outer, None, [], None, "seed-0")  # type: ignore[arg-type]
    assert list(controls) == ["random_selection", *(["plain_reward"] if weighted else [])]
    assert {stage: (own.selection, own.scoring.elsewhere) for stage, own in trained.items()} == {
        "seed-0/trained_teacher": ("best", net),
        "seed-0/random_selection": ("random", net),
        **({"seed-0/plain_reward": ("best", None)} if weighted else {}),
    }
