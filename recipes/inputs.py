"""Everything a recipe names, checked before any work: contexts, models, domain, grader. Torch-free."""

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, Literal

from safetensors import SafetensorError, safe_open

from protocol.domain import Domain
from protocol.errors import InvalidInput, MalformedEdit
from protocol.files import hash_files
from protocol.identity import content_id
from protocol.messages import Context, Question, Task
from recipes.base_settings import DataSettings, RecipeSettings, StudentChoice
from recipes.domains import RecipeDomain, open_domain
from recipes.graders import check_grader, grader_id
from recipes.graders.settings import JudgeSettings
from recipes.reach import check_exchange
from recipes.zero_configs import check_config
from student.settings import StudentSettings
from teacher.endpoint import check_settings
from teacher.serving import check_served
from teacher.settings import TeacherSettings


def choose_task(settings: RecipeSettings) -> tuple[RecipeDomain, Task]:
    """The domain, and the task that requests name."""
    domain = open_domain(settings.domain, settings.grids)
    grader = settings.grader or domain.default_grader
    check_grader(grader, settings.judge)
    if domain.graders is not None and grader not in domain.graders:
        raise InvalidInput(f"grader is {grader!r}, which reads texts; domain {settings.domain} has {', '.join(domain.graders)}")
    name, version = grader_id(grader, settings.judge)
    return domain, Task(domain=domain.name, domain_version=domain.version, grader=name, grader_version=version)


def choose_style(style: str, domain: Domain, key: str = "teacher.style") -> str:
    chosen = style or domain.styles[0]
    if chosen not in domain.styles:
        raise InvalidInput(f"{key} is {chosen!r}; it is one of {', '.join(domain.styles)}")
    return chosen


STAND_IN: Final = Context(passage="?" * 760, questions=(Question(text="?", answers=("?",)),) * 5)
STAND_INS: Final = 200
"""What an unread source of a hub is taken to hold: so many of these, if there is no limit. They are as long as SQuAD's passages."""

MOST_TINY: Final = 10_000
"""Each is made anew whenever it is read."""


def load_data(
    domain: RecipeDomain, data: DataSettings, key: str, *, questions: bool, fetch: bool = True
) -> tuple[list[Context], dict[str, str]]:
    """Contexts, each once, and reference self-edits by context id where the source has them.

    Args:
        key: The recipe's key, for messages.
        questions: Whether every context needs questions with answers.
        fetch: Whether to read from a hub; otherwise stand-ins of the usual size are given for what it holds.
    """
    if not data.source:
        raise InvalidInput(f"{key}.source is empty; give a file, a folder, hub:NAME or tiny")
    if data.source == "tiny" and (data.limit or 0) > MOST_TINY:
        raise InvalidInput(f"{key}.limit is {data.limit}, but a tiny world has at most {MOST_TINY} contexts; lower it")
    references: dict[str, str] = {}
    if data.is_on_hub and not fetch and domain.closed_book:  # other domains have no data on a hub, as they will say
        contexts = [STAND_IN.model_copy(update={"title": str(number)}) for number in range(data.limit or STAND_INS)]
    else:
        loaded, references = domain.load(data.source, data.split, data.limit)
        contexts = list({context.id: context for context in loaded}.values())
        if data.shuffle is not None:
            random.Random(data.shuffle).shuffle(contexts)
        contexts = contexts[: data.limit]
    if data.reference:
        check_edit(domain, data.reference, contexts[0], f"{key}.reference")
        references = {context.id: data.reference for context in contexts}
    if questions:
        for context in contexts:
            if not any(question.answers for question in context.questions):
                raise InvalidInput(
                    f"{key}.source {data.source}: context {context.label!r} has no question with an answer, "
                    "but rewards need one; add questions, or use recipe: adapt_student, which works without"
                )
    return contexts, references


def check_edit(domain: RecipeDomain, text: str, context: Context, key: str) -> None:
    """See that a text of a recipe is a self-edit."""
    try:
        domain.parse(text, context)
    except MalformedEdit as error:
        raise InvalidInput(f"{key} is no self-edit: {error}") from error


_SERVED: Final = ".endpoint.model"


def identify(contexts: Mapping[str, Sequence[Context]], models: Mapping[str, tuple[str | None, str | None]]) -> dict[str, str]:
    """Identities of a run's inputs by recipe key, so that a run never goes on with other data or other weights.

    Args:
        models: By key, a model's or adapter's folder (or hub name) and revision. What an endpoint serves is known by its name alone.
    """
    known = {key: content_id([context.id for context in used]) for key, used in contexts.items()}
    for key, (name, revision) in models.items():
        if name is not None:
            known[key] = name if key.endswith(_SERVED) else _identify_model(name, revision)
    return known


def _identify_model(name: str, revision: str | None) -> str:
    """Of a file its content; of a folder its configuration and weights, file by file; of a hub model its name and revision."""
    folder = Path(name)
    if folder.is_file():
        return hash_files([folder])
    if not folder.is_dir():
        return f"{name}@{revision or 'main'}"
    return hash_files([*folder.glob("*.json"), *folder.glob("*.safetensors")])


Kind = Literal["model", "adapter", "either"]


def check_model(name: str, key: str, revision: str | None = None, kind: Kind = "model", fetch: bool = True) -> None:
    """See that a model can be loaded: a folder with a config and safetensors, or a hub model, fetched now.

    Args:
        name: Folder or hub name.
        key: The recipe's key, for messages.
        revision: Hub revision.
        kind: A whole model, a PEFT folder, or either: a trained teacher may be given as its PEFT folder alone.
        fetch: Whether a hub model is fetched; otherwise it is taken to be there.
    """
    if not name:
        raise InvalidInput(f"{key} is empty; give a model folder or a hub name")
    folder = Path(name)
    if folder.is_dir():
        is_adapter = kind == "adapter" or (kind == "either" and (folder / "adapter_config.json").exists())
        config = _check_folder(folder, key, "adapter_" if is_adapter else "")
        if kind == "either" and is_adapter:
            check_model(config.get("base_model_name_or_path") or "", f"{key}'s base", fetch=fetch)
        return
    if folder.exists():
        raise InvalidInput(f"{key} is {name!r}, a file; it must be a folder")
    if kind == "adapter" or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InvalidInput(f"{key} is {name!r}, which does not exist; give a folder that save_pretrained has written")
    if not fetch:
        return
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(name, revision=revision, allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"])
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().split("\n")[0]
        raise InvalidInput(f"{key} is {name!r}: no such folder, and the hub does not give it ({reason})") from error


def _check_folder(folder: Path, key: str, prefix: str) -> dict[str, Any]:
    """See that a folder has a readable configuration and whole weights; returns the configuration."""
    config = folder / f"{prefix}config.json"
    if not config.exists():
        raise InvalidInput(f"{key} is {str(folder)!r}, a folder without {config.name}; give one that save_pretrained has written")
    try:
        content: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInput(f"{key}: {config} is not JSON ({error}); save the model again") from error
    weights = sorted(folder.glob(f"{prefix}model*.safetensors"))
    if not weights:
        raise InvalidInput(f"{key} is {str(folder)!r}, a folder without {prefix}model.safetensors; save it with save_pretrained")
    for path in weights:
        try:
            with safe_open(path, framework="np"):
                pass
        except SafetensorError as error:
            raise InvalidInput(f"{key}: {path} is damaged ({error}); copy or save the model again") from error
    return content


def _check_chat(chat: bool, model: str, key: str) -> None:
    """See that a folder has a chat template where one is asked for; of a hub model, loading will tell."""
    folder = Path(model)
    if not chat or not folder.is_dir():
        return
    if (folder / "adapter_config.json").exists():
        base = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("base_model_name_or_path")
        _check_chat(chat, base or "", key)
        return
    tokenizer = folder / "tokenizer_config.json"
    held = tokenizer.read_text(encoding="utf-8") if tokenizer.exists() else ""
    if '"chat_template"' not in held and not (folder / "chat_template.jinja").exists():
        raise InvalidInput(f"{key} is true, but {model!r} has no chat template; set it to false, or take a model that has one")


def teacher_models(teacher: TeacherSettings, key: str) -> dict[str, tuple[str | None, str | None]]:
    """What `identify` is to know of a teacher."""
    if teacher.edits:
        return {f"{key}.edits": (teacher.edits, None)}
    served = {key + _SERVED: (teacher.label, None)} if teacher.is_at_endpoint else {}
    return {f"{key}.model": (teacher.model or None, teacher.revision), f"{key}.adapter": (teacher.adapter, None), **served}


def judge_models(judge: JudgeSettings) -> dict[str, tuple[str | None, str | None]]:
    """What `identify` is to know of a judge: a local one's model."""
    return {"judge.model": (judge.model, judge.revision)} if judge.base_url is None else {}


def check_judge_model(judge: JudgeSettings, *, fetch: bool = True) -> None:
    for key in judge_models(judge):
        check_model(judge.model, key, judge.revision, kind="either", fetch=fetch)


def check_teacher(
    teacher: TeacherSettings,
    key: str,
    domain: RecipeDomain,
    contexts: Sequence[Context] = (),
    count: int = 1,
    *,
    fetch: bool = True,
    is_trained: bool = False,
) -> None:
    """See that a teacher can be loaded, or asked at its endpoint.

    Args:
        contexts, count: A teacher that is a file of self-edits must have so many about each of these.
        is_trained: Whether the recipe finetunes it.
    """
    if teacher.edits:
        for other, value in (("model", teacher.model or teacher.adapter), ("endpoint.base_url", teacher.endpoint.base_url)):
            if value:
                raise InvalidInput(
                    f"{key}.edits is {teacher.edits!r}, but {key}.{other} is set as well; a teacher is one or the other: leave one empty"
                )
        known = [context for context in contexts if context.passage != STAND_IN.passage]
        domain.find_written(Path(teacher.edits), known, count, f"{key}.edits")
        return
    if is_trained or not teacher.is_at_endpoint:
        check_model(teacher.model, f"{key}.model", teacher.revision, kind="either", fetch=fetch)
        _check_chat(teacher.chat, teacher.model, f"{key}.chat")
    if teacher.adapter is not None:
        check_model(teacher.adapter, f"{key}.adapter", kind="adapter")
    if teacher.is_at_endpoint:
        _check_endpoint_teacher(teacher, key, is_trained, fetch)


def _check_endpoint_teacher(teacher: TeacherSettings, key: str, is_trained: bool, fetch: bool) -> None:
    check_settings(teacher, f"{key}.endpoint")
    if (Path(teacher.model or "?") / "adapter_config.json").exists():
        raise InvalidInput(
            f"{key}.model is {teacher.model!r}, an adapter, but {key}.endpoint.base_url is set, where a base model is served; "
            f"give the adapter as {key}.adapter, and its base as {key}.model"
        )
    if fetch:
        check_served(teacher, f"{key}.endpoint", is_trained)


def uses_deepspeed(settings: RecipeSettings) -> bool:
    values = [getattr(settings, item.name) for item in fields(settings)]
    values += [student for value in values if isinstance(value, dict) for student in value.values()]
    return any(getattr(value, "deepspeed", None) is not None for value in values)


def student_models(students: Mapping[str, StudentSettings]) -> dict[str, tuple[str | None, str | None]]:
    """What `identify` is to know of students, given by key; one elsewhere is known by its card."""
    here = {key: student for key, student in students.items() if not isinstance(student, StudentChoice) or student.is_local}
    return {f"{key}.model": (student.model, student.revision) for key, student in here.items()}


def check_student(student: StudentChoice, key: str, task: Task, *, fetch: bool = True) -> None:
    """See that a student can be opened here, or reached elsewhere."""
    if student.is_local:
        check_local_student(student, key, fetch=fetch)
    else:
        check_exchange(student, key, task, fetch)


def check_local_student(student: StudentSettings, key: str, *, fetch: bool = True) -> None:
    check_model(student.model, f"{key}.model", student.revision, fetch=fetch)
    _check_chat(student.chat, student.model, f"{key}.chat")
    check_config(student.deepspeed, f"{key}.deepspeed", student.dtype)
    for name in ("deepspeed", "seal_compat", "dropout"):
        if getattr(student, name) and student.inner_loop == "cohort":
            raise InvalidInput(f"{key}.inner_loop is 'cohort', but {key}.{name} is for one at a time; set inner_loop to 'single' or 'auto'")
