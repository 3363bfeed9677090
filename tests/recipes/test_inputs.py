import json
from pathlib import Path

import pytest
from safetensors.numpy import save_file

from protocol.errors import InvalidInput
from recipes.base_settings import DataSettings
from recipes.costs import Sizes, count_parameters, measure_contexts
from recipes.domains import DOMAINS
from recipes.inputs import check_local_student, check_teacher, load_data
from student.settings import StudentSettings
from teacher.settings import TeacherSettings

KNOWLEDGE = DOMAINS["knowledge"]


def write(tmp_path: Path, *questions: list[dict[str, object]], passage: str = "Ada plays the harp.") -> DataSettings:
    rows = [{"title": "Ada", "context": passage, "questions": asked} for asked in questions]
    (tmp_path / "data.json").write_text(json.dumps(rows, ensure_ascii=False))
    return DataSettings(source=str(tmp_path / "data.json"))


def test_a_context_that_stands_there_twice_is_used_once(tmp_path: Path) -> None:
    asked: list[dict[str, object]] = [{"question": "What?", "answer": "harp"}]
    contexts, _ = load_data(KNOWLEDGE, write(tmp_path, asked, asked, []), "contexts", questions=False)
    assert len(contexts) == 2


def test_contexts_are_shuffled_before_they_are_limited(tmp_path: Path) -> None:
    asked: list[list[dict[str, object]]] = [[{"question": f"{n}?", "answer": "x"}] for n in range(20)]
    data = write(tmp_path, *asked)
    data.limit, data.shuffle = 5, 1
    first, _ = load_data(KNOWLEDGE, data, "contexts", questions=True)
    again, _ = load_data(KNOWLEDGE, data, "contexts", questions=True)
    assert first == again
    assert [context.questions[0].text for context in first] != [f"{n}?" for n in range(5)]


@pytest.mark.parametrize("answer", ["", "  ", [], ["", " "], None])
def test_questions_whose_answers_are_empty_earn_nothing(tmp_path: Path, answer: object) -> None:
    data = write(tmp_path, [{"question": "What?", **({} if answer is None else {"answer": answer})}])
    with pytest.raises(InvalidInput, match=r"context 'Ada' has no question with an answer, but rewards need one; add questions"):
        load_data(KNOWLEDGE, data, "contexts", questions=True)
    assert load_data(KNOWLEDGE, data, "contexts", questions=False)[0][0].questions[0].answers == ()


def test_several_answers_and_other_scripts_come_through(tmp_path: Path) -> None:
    passage = "عاشت آدا في لندن. Ада играла на арфе 🎻."
    (context,), _ = load_data(
        KNOWLEDGE,
        write(tmp_path, [{"question": "أين؟", "answers": ["لندن", "London", "", "لندن"]}], passage=passage),
        "contexts",
        questions=True,
    )
    assert context.passage == passage
    assert context.questions[0].answers == ("لندن", "London")


def test_a_passage_of_200_kilobytes_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="at most 200000 characters; split what is longer"):
        load_data(KNOWLEDGE, write(tmp_path, [], passage="x" * 204_800), "contexts", questions=False)


def test_squads_titles_lose_their_underscores(tmp_path: Path) -> None:
    paragraph = {"context": "Ada plays.", "qas": [{"question": "Who?", "answers": [{"text": "Ada"}]}]}
    (tmp_path / "squad.json").write_text(json.dumps({"data": [{"title": "Ada_Lovelace", "paragraphs": [paragraph]}]}))
    (context,), _ = load_data(KNOWLEDGE, DataSettings(source=str(tmp_path / "squad.json")), "contexts", questions=True)
    assert context.title == "Ada Lovelace"


def test_a_model_without_a_chat_template_is_not_put_in_chat(llama: str, chatting: str, tmp_path: Path) -> None:
    adapters = {}
    for model in (llama, chatting):
        adapters[model] = tmp_path / Path(model).name
        adapters[model].mkdir()
        (adapters[model] / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": model}))
        save_file({}, adapters[model] / "adapter_model.safetensors")
    check_local_student(StudentSettings(model=llama), "student")
    check_local_student(StudentSettings(model=chatting, chat=True), "student")
    with pytest.raises(
        InvalidInput, match=r"new_student\.chat is true, but .* has no chat template; set it to false, or take a model that"
    ):
        check_local_student(StudentSettings(model=llama, chat=True), "new_student")
    for model in (chatting, str(adapters[chatting])):
        check_teacher(TeacherSettings(model=model, chat=True), "teacher", KNOWLEDGE)
    for model in (llama, str(adapters[llama])):
        check_teacher(TeacherSettings(model=model), "teacher", KNOWLEDGE)
        with pytest.raises(InvalidInput, match=r"teachers\.a\.chat is true, but .* has no chat template"):
            check_teacher(TeacherSettings(model=model, chat=True), "teachers.a", KNOWLEDGE)


def test_a_hub_is_not_asked_in_a_dry_run() -> None:
    contexts, _ = load_data(KNOWLEDGE, DataSettings(source="hub:nobody/nothing", limit=7), "contexts", questions=True, fetch=False)
    assert measure_contexts(contexts) == Sizes(contexts=7, passage_tokens=760 / 4.3, questions=5)


def test_a_hub_has_no_tasks_on_grids() -> None:
    with pytest.raises(InvalidInput, match=r"'hub:nobody/nothing' does not exist; give ARC's file of challenges"):
        load_data(DOMAINS["few_shot"], DataSettings(source="hub:nobody/nothing"), "contexts", questions=True, fetch=False)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("Qwen/Qwen2.5-7B", 7e9), ("meta-llama/Llama-3.2-1B", 1e9), ("Qwen/Qwen3-0.6B-Base", 6e8), ("a/smol-135M", 1.35e8), ("gpt2", None)],
)
def test_a_hub_models_size_is_read_from_its_name(name: str, parameters: float | None) -> None:
    assert count_parameters(name) == parameters


def test_a_folders_size_is_read_from_its_weights(llama: str) -> None:
    from transformers import AutoModelForCausalLM

    assert count_parameters(llama) == AutoModelForCausalLM.from_pretrained(llama).num_parameters()
    assert count_parameters(str(Path(__file__).resolve().parents[2] / "recipes" / "tiny" / "models" / "seed_oss")) == 849_184


def test_a_result_file_lends_its_contexts(tmp_path: Path) -> None:
    asked = [{"rep": rep, "question": "What?", "answer": "harp"} for rep in range(3)]
    article = {"title": "Ada", "context": "Ada plays.", "completions": [{"text": "x", "questions": asked}]}
    (tmp_path / "rank.json").write_text(json.dumps({"articles": [article]}))
    (context,), _ = load_data(KNOWLEDGE, DataSettings(source=str(tmp_path / "rank.json")), "contexts", questions=True)
    assert [(question.text, question.answers) for question in context.questions] == [("What?", ("harp",))]
