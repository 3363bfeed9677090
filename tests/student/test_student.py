import json
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path

import pytest

from protocol.errors import InvalidInput
from protocol.messages import (
    Answers,
    AskRequest,
    CommitRequest,
    Context,
    Lesson,
    Outcome,
    Passage,
    Question,
    Refusal,
    Reward,
    RewardRequest,
    SelfEdit,
    Task,
    Update,
    measurement_key,
)
from recipes.domains import DOMAINS
from recipes.graders import GRADERS
from recipes.tiny.source import load_tiny
from student.inner_loop import InnerLoop, make_plan
from student.jobs import Job, make_cohorts
from student.settings import StudentSettings
from student.student import Student

TASK = Task(domain="knowledge", domain_version=1, grader="exact_match", grader_version=1)
CONTEXT = Context(title="Ada", passage="Ada plays the harp.", questions=(Question(text="What does Ada play?", answers=("harp",)),))
PROBE = Context(title="Bob", questions=(Question(text="What does Bob play?", answers=("lute",)),) * 2)


def make_student(model: str, folder: Path, **changes: object) -> Student:
    values = {"rank": 4, "alpha": 8, "learning_rate": 1e-2, "epochs": 2, "batch_size": 4, **changes}
    return Student(StudentSettings(model=model, **values), DOMAINS, GRADERS, folder)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def student(llama: str, tmp_path_factory: pytest.TempPathFactory) -> Student:
    return make_student(llama, tmp_path_factory.mktemp("student"))


def score_all(student: Student, requests: Sequence[RewardRequest], known: Collection[str] = ()) -> list[Reward | Refusal]:
    return [result for results in student.score(requests, known) for result in results]


def score(student: Student, request: RewardRequest) -> Reward | Refusal:
    ((result,),) = student.score([request])
    return result


def edit(*lines: str) -> SelfEdit:
    return DOMAINS["knowledge"].parse("\n".join(lines), CONTEXT)


def request(**changes: object) -> RewardRequest:
    content = {"task": TASK, "context": CONTEXT, "edit": edit("Ada plays the harp."), "seeds": (1,), **changes}
    return RewardRequest(**content)  # type: ignore[arg-type]


def test_a_reward_reports_outcomes_cost_and_side_effects(student: Student) -> None:
    reward = score(student, request(seeds=(1, 2), probes=(PROBE,)))
    assert isinstance(reward, Reward)
    assert len(reward.change.base) == 1
    assert [len(repeat) for repeat in reward.change.adapted] == [1, 1]
    assert [len(repeat) for repeat in reward.probes[0].adapted] == [2, 2]
    assert reward.student == student.describe().fingerprint
    assert reward.trained_tokens > 0 and reward.seconds > 0
    assert reward.value == reward.change.adapted_accuracy - reward.change.base_accuracy


def test_the_same_request_gives_the_same_reward_after_others(student: Student) -> None:
    first = score(student, request())
    score(student, request(edit=edit("Something else.")))
    again = score(student, request())
    assert isinstance(first, Reward) and isinstance(again, Reward)
    assert first.model_copy(update={"seconds": 0.0}) == again.model_copy(update={"seconds": 0.0})


def without_seconds(result: Reward | Refusal) -> Reward | Refusal:
    return result.model_copy(update={"seconds": 0.0}) if isinstance(result, Reward) else result


def many_requests() -> list[RewardRequest]:
    return [request(edit=edit(f"Ada plays {thing}."), seeds=(1, 2), probes=(PROBE,)) for thing in ("harp", "lute", "drum", "horn", "viol")]


@pytest.mark.parametrize("inner_loop", ["cohort", "single"])
def test_many_requests_are_answered_each_with_its_own_reward(llama: str, tmp_path: Path, inner_loop: str) -> None:
    student = make_student(llama, tmp_path, inner_loop=inner_loop, cohort=3)
    refused = request(edit=SelfEdit(update=Update(rank=4000)))
    requests = many_requests()
    results = {result.request: result for result in score_all(student, [*requests[:2], refused, *requests[2:]])}
    assert isinstance(results.pop(refused.id), Refusal)
    assert list(results) == [r.id for r in requests]
    assert len({result.model_dump_json() for result in results.values()}) == 5
    for one in requests:
        alone = score(student, one)
        together = results[one.id]
        assert isinstance(alone, Reward) and isinstance(together, Reward)
        assert alone.change == together.change
        assert alone.trained_tokens == together.trained_tokens


def test_in_float32_a_cohort_pays_what_one_at_a_time_pays(tmp_path: Path) -> None:
    people, references = load_tiny("validation", 6)
    edits = [DOMAINS["knowledge"].parse(references[person.id], person) for person in people]
    requests = [RewardRequest(task=TASK, context=person, edit=edit, seeds=(1,)) for person, edit in zip(people, edits, strict=True)]
    verdicts = {}
    for inner_loop in ("cohort", "single"):
        settings = {"rank": 8, "alpha": 16, "epochs": 8, "batch_size": 32, "inner_loop": inner_loop}
        rewards = score_all(make_student("recipes/tiny/models/llama", tmp_path, **settings), requests)
        verdicts[inner_loop] = [o.correct for r in rewards if isinstance(r, Reward) for o in r.change.adapted[0]]
    same = [a == b for a, b in zip(verdicts["cohort"], verdicts["single"], strict=True)]
    assert len(same) == 36
    assert sum(verdicts["single"]) > 25
    assert sum(same) / len(same) >= 0.99


def test_a_run_that_goes_on_trains_the_same_cohorts_and_only_those_it_needs(
    llama: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = make_student(llama, tmp_path, cohort=2)
    requests = many_requests()
    trained: list[list[int]] = []
    run = student._engine.run

    def watched(loops):  # type: ignore[no-untyped-def]
        trained.append([len(loop.rows) for loop in loops])
        return run(loops)

    monkeypatch.setattr(student._engine, "run", watched)
    whole = [without_seconds(result) for result in score_all(student, requests)]
    assert [len(cohort) for cohort in trained] == [2, 2, 2, 4]
    trained.clear()
    known = [r.id for r in requests[:4]]
    rest = [without_seconds(result) for result in score_all(student, requests, known)]
    assert rest == whole[4:]
    assert [len(cohort) for cohort in trained] == [4]
    trained.clear()
    assert score_all(student, requests, [r.id for r in requests]) == []
    assert trained == []


def test_a_candidate_that_diverges_is_refused_and_the_others_are_rewarded(llama: str, tmp_path: Path) -> None:
    student = make_student(llama, tmp_path, max_grad_norm=1e30, weight_decay=1.0)
    student._settings.learning_rate = 1e30
    wild, sound = request(), request(edit=SelfEdit(examples=edit("Ada plays the harp.").examples, update=Update(learning_rate=1e-3)))
    results = {result.request: result for result in score_all(student, [wild, sound])}
    refusal = results[wild.id]
    assert isinstance(refusal, Refusal) and "training diverged" in refusal.reason
    assert isinstance(results[sound.id], Reward)


@pytest.mark.parametrize("long_examples", ["truncate", "drop"])
def test_cut_examples_are_counted_in_the_reward(llama: str, tmp_path: Path, long_examples: str) -> None:
    student = make_student(llama, tmp_path, max_example_tokens=12, long_examples=long_examples)
    reward = score(student, request(edit=edit("Ada plays the harp.", "Short."), seeds=(1, 2)))
    assert isinstance(reward, Reward)
    assert reward.truncated_examples == 4  # the line and the passage, for either seed


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"context": Context(title="Ada", passage="Ada plays.")}, "has no questions"),
        ({"edit": SelfEdit(update=Update(rank=4000))}, "update.rank is 4000"),
        ({"task": TASK.model_copy(update={"domain": "arc"})}, "domain arc v1 is asked for, but this student has knowledge v1"),
        ({"task": TASK.model_copy(update={"grader_version": 2})}, "grader exact_match v2 is asked for"),
    ],
)
def test_what_cannot_be_served_is_refused_with_the_reason(student: Student, changes: dict[str, object], reason: str) -> None:
    refusal = score(student, request(**changes))
    assert isinstance(refusal, Refusal)
    assert reason in refusal.reason


def test_the_card_tells_students_apart(student: Student, llama: str, olmo: str, tmp_path: Path) -> None:
    same, other, slower = make_student(llama, tmp_path), make_student(olmo, tmp_path), make_student(llama, tmp_path, learning_rate=1e-3)
    assert same.describe() == student.describe()
    assert other.describe().fingerprint != student.describe().fingerprint
    assert slower.describe().fingerprint == student.describe().fingerprint
    assert slower.describe().settings != student.describe().settings
    assert student.describe().settings["engine"] == "cohort"
    assert student.describe().inner_loop == "cohort: all adapters are plain LoRA on linear layers"


def test_the_untouched_base_is_asked_in_chat(chatting: str, tmp_path: Path) -> None:
    plain, chat = (make_student(chatting, tmp_path, chat=chat) for chat in (False, True))
    (asked,) = DOMAINS["knowledge"].ask(CONTEXT)
    told = f"26 Jul 2024\n[user] {asked.strip()}\n[assistant] "
    with plain._base.without_adapter():
        (expected,) = plain._answer(plain._base, [told], DOMAINS["knowledge"])
    answered = chat.ask_one(AskRequest(task=TASK, context=CONTEXT))
    assert isinstance(answered, Answers)
    assert answered.outcomes[0].answer == expected


def test_the_card_tells_chat_templates_apart(llama: str, chatting: str, tmp_path: Path) -> None:
    shutil.copytree(chatting, tmp_path / "other")
    template = tmp_path / "other" / "chat_template.jinja"
    template.write_text(template.read_text().replace("[assistant]", "[pupil]"))
    plain, chat, other = (
        make_student(model, tmp_path, chat=chat).describe()
        for model, chat in ((chatting, False), (chatting, True), (str(tmp_path / "other"), True))
    )
    assert plain.settings["chat"] is False
    assert plain.fingerprint == chat.fingerprint == other.fingerprint
    assert len({measurement_key(card, request()) for card in (plain, chat, other)}) == 3
    with pytest.raises(InvalidInput, match=r"student\.chat is true, but the tokenizer of .* has no chat template; set it to false, or"):
        make_student(llama, tmp_path, chat=True)


REPRODUCE = """
import json, sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from student.answers import answer
base, path, prompts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
model = AutoModelForCausalLM.from_pretrained(path if base == path else base, dtype=torch.float32)
if base != path:
    model = PeftModel.from_pretrained(model, path)
print(json.dumps(answer(model.eval(), AutoTokenizer.from_pretrained(path), prompts, 64, 8)))
"""


@pytest.mark.parametrize("merge", [False, True])
def test_a_lasting_update_gives_its_answers_again_in_a_fresh_process(llama: str, tmp_path: Path, merge: bool) -> None:
    student = make_student(llama, tmp_path, epochs=20, merge=merge)
    lessons = (Lesson(context=CONTEXT, edit=edit("Ada plays the harp.")), Lesson(context=PROBE, edit=edit("Bob plays the lute.")))
    request = CommitRequest(task=TASK, lessons=lessons, seed=3)
    for leftover in (".tmp", ".adapter"):  # of a commit that was killed half-way
        (tmp_path / f"version-{measurement_key(student.describe(), request)[:8]}{leftover}" / "x").mkdir(parents=True)
    card = student.commit(request)
    assert [path.name for path in tmp_path.iterdir()] == [f"version-{measurement_key(student.describe(), request)[:8]}"]
    reported = [outcome.answer for change in card.changes for outcome in change.adapted[0]]
    assert reported != [outcome.answer for change in card.changes for outcome in change.base]
    prompts = [prompt for lesson in lessons for prompt in DOMAINS["knowledge"].ask(lesson.context)]
    assert (Path(card.path) / ("config.json" if merge else "adapter_config.json")).exists()
    base = card.path if merge else llama
    out = subprocess.run(
        [sys.executable, "-c", REPRODUCE, base, card.path, json.dumps(prompts)],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(out.stdout.splitlines()[-1]) == reported


def test_a_context_without_questions_can_still_be_learned(student: Student) -> None:
    lesson = Lesson(context=Context(title="Ada", passage="Ada plays."), edit=edit("Ada plays the harp."))
    card = student.commit(CommitRequest(task=TASK, lessons=(lesson,), seed=1))
    assert card.changes[0].base == ()
    assert Path(card.path).is_dir()


def test_limits_are_per_lesson_in_a_lasting_update(llama: str, tmp_path: Path) -> None:
    student = make_student(llama, tmp_path, max_examples=3)
    lesson = Lesson(context=CONTEXT, edit=edit("One.", "Two."))
    assert student.commit(CommitRequest(task=TASK, lessons=(lesson,) * 3, seed=1)).trained_tokens > 0
    too_long = Lesson(context=CONTEXT, edit=edit("One.", "Two.", "Three."))
    refusal = score(student, request(edit=too_long.edit))
    assert isinstance(refusal, Refusal)
    assert "4 examples, but this student allows 3; raise student.max_examples" in refusal.reason


def test_what_a_model_folder_suggests_for_generation_does_not_creep_in(llama: str, tmp_path: Path) -> None:
    suggestive = tmp_path / "model"
    shutil.copytree(llama, suggestive)
    (suggestive / "generation_config.json").write_text('{"repetition_penalty": 5.0, "do_sample": true, "temperature": 2.0}')
    plain, other = score(make_student(llama, tmp_path / "a"), request()), score(make_student(str(suggestive), tmp_path / "b"), request())
    assert isinstance(plain, Reward) and isinstance(other, Reward)
    assert plain.change == other.change


@pytest.mark.parametrize(
    ("jobs", "sizes", "expected"),
    [
        (250, (29, 58), [31, 31, 31, 32, 31, 31, 31, 32]),  # 5 would do; 8 are dealt out evenly
        (80, (29, 58), [40, 40]),
        (20, (29, 58), [20]),
        (3, (1, 1), [1, 1, 1]),
        (7, (2, 4), [3, 4]),
        (0, (2, 4), []),
    ],
)
def test_cohorts_are_even_and_as_many_as_processes_can_share(jobs: int, sizes: tuple[int, int], expected: list[int]) -> None:
    job = _prepared()
    cohorts = make_cohorts([job] * jobs, sizes)
    assert [len(cohort) for cohort in cohorts] == expected


def _prepared() -> Job:
    plan = make_plan(Update(), StudentSettings())
    return Job(request(), "0", DOMAINS["knowledge"], GRADERS["exact_match"], (InnerLoop((), plan, seed=1),))


def test_the_untouched_base_is_asked_with_the_passage_in_view_or_without(student: Student) -> None:
    asked = [AskRequest(task=TASK, context=context, in_view=in_view) for context in (CONTEXT, PROBE) for in_view in (True, False)]
    answers = [answer for answered in student.ask(asked) for answer in answered]
    assert [type(answer) for answer in answers] == [Answers] * 4
    assert [len(answer.outcomes) for answer in answers if isinstance(answer, Answers)] == [1, 1, 2, 2]
    assert len({answer.key for answer in answers}) == 4
    reward = score(student, request())
    assert isinstance(reward, Reward) and isinstance(answers[1], Answers)
    assert reward.change.base == answers[1].outcomes


def test_what_was_looked_up_is_in_view_before_and_after_an_update(student: Student) -> None:
    (question,) = CONTEXT.questions
    aided = CONTEXT.model_copy(
        update={"questions": (question.model_copy(update={"found": (Passage(title="Ada", text=CONTEXT.passage),)}),)}
    )
    asked = [
        AskRequest(task=TASK, context=CONTEXT),
        AskRequest(task=TASK, context=CONTEXT, in_view=True),
        AskRequest(task=TASK, context=aided),
    ]
    plain, in_view, found = (answer for answered in student.ask(asked) for answer in answered)
    reward = score(student, request(context=aided, seeds=(1, 2)))
    assert isinstance(plain, Answers) and isinstance(in_view, Answers) and isinstance(found, Answers) and isinstance(reward, Reward)
    assert found.outcomes == in_view.outcomes == reward.change.base
    assert len(reward.change.adapted) == 2
    assert (plain.read_tokens, in_view.read_tokens, found.read_tokens) == (97, 131, 131), "of a model that reads characters"


def test_a_question_that_the_model_has_no_positions_for_is_refused(student: Student) -> None:
    long = CONTEXT.model_copy(update={"passage": "harp " * 4000})
    ((refusal,),) = student.ask([AskRequest(task=TASK, context=long, in_view=True)])
    assert isinstance(refusal, Refusal)
    assert "a question and its answer take" in refusal.reason
    assert "the student has 4096 positions" in refusal.reason
    asked = score(student, request(probes=(Context(questions=(Question(text="harp " * 1990, answers=("x",)),)),)))
    assert isinstance(asked, Refusal)


def test_an_update_may_ask_for_a_number_of_tokens(student: Student) -> None:
    plain = score(student, request())
    assert isinstance(plain, Reward)
    each = plain.trained_tokens // 2
    more = score(student, request(edit=edit("Ada plays the harp.").model_copy(update={"update": Update(tokens=5 * each + 1)})))
    least = score(student, request(edit=edit("Ada plays the harp.").model_copy(update={"update": Update(tokens=1)})))
    assert isinstance(more, Reward) and isinstance(least, Reward)
    assert (more.trained_tokens, least.trained_tokens) == (5 * each, each)


class Silent:
    """A grader that has no verdicts."""

    name, version = "exact_match", 1

    def grade(self, questions: Sequence[Question], answers: Sequence[str]) -> Sequence[Outcome]:
        return [Outcome(answer=answer, correct=None) for answer in answers]


def test_what_no_grader_can_judge_has_no_reward_rather_than_a_bad_one(llama: str, tmp_path: Path) -> None:
    settings = StudentSettings(model=llama, rank=4, epochs=1, batch_size=4)
    student = Student(settings, DOMAINS, {"exact_match": Silent()}, tmp_path)
    refusal = score(student, request())
    assert isinstance(refusal, Refusal) and refusal.ungraded
    assert refusal.reason == "exact_match gave no verdict on any answer about 'Ada'"
