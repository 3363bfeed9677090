"""Check what recipes need whose students keep learning, or did. Torch-free, as `recipes.checks`, which calls it."""

from dataclasses import fields
from pathlib import Path
from typing import Final

from protocol.errors import InvalidInput
from recipes.base_settings import StudentChoice
from recipes.domains import RecipeDomain
from recipes.gate_settings import check_gate
from recipes.inputs import check_local_student, check_model, check_teacher, choose_style, choose_task, load_data
from recipes.learning_settings import Continual, TryGate, Watch
from recipes.sandbox import resolve_command
from recipes.schedule import read_schedule
from recipes.settings import TrainTeacher
from student.settings import KeepingSettings
from student.version_history import read_line

TRIED: Final = ("validation", "held_out")
"""The splits of the tiny world whose people a gate may be tried on."""


def check_continual(settings: Continual, fetch: bool) -> str:
    """What would run; see `recipes.checks.check`."""
    domain, _ = choose_task(settings)
    if not domain.closed_book:
        raise InvalidInput(f"domain is {settings.domain!r}, where nothing is learned for good; recipe continual is for texts")
    if settings.length < 2:
        raise InvalidInput(f"length is {settings.length}; forgetting shows from 2 contexts on")
    _check_student_here(settings.student, settings.recipe, fetch)
    contexts, _ = load_data(domain, settings.contexts, "contexts", questions=True, fetch=fetch)
    wanted = settings.sequences * settings.length
    if len(contexts) < wanted:
        raise InvalidInput(
            f"contexts has {len(contexts)}, but sequences x length is {settings.sequences} x {settings.length} = {wanted}; "
            "raise contexts.limit, or lower sequences or length"
        )
    check_teacher(settings.teacher, "teacher", domain, contexts[:wanted], fetch=fetch)
    for key in ("retention", "others"):
        if getattr(settings, key).source:
            load_data(domain, getattr(settings, key), key, questions=key == "retention", fetch=fetch)
    if not settings.strategies:
        raise InvalidInput("strategies is empty; give one, such as strategies.mine.strategies=[constrain]")
    for name, keeping in settings.strategies.items():
        if Path(name).name != name:
            raise InvalidInput(f"strategies.{name}: {name!r} names a file in the run folder; choose a plain name")
        _check_keeping(keeping, f"strategies.{name}", fetch)
    return f"{len(settings.strategies)} strategies, each with {settings.sequences} students that learn {settings.length} contexts in turn"


def _check_keeping(keeping: KeepingSettings, key: str, fetch: bool) -> None:
    if keeping.texts_from is not None and not Path(keeping.texts_from).is_file():
        check_model(keeping.texts_from, f"{key}.texts_from", fetch=fetch)


def check_watch(settings: Watch, fetch: bool) -> str:
    """What would run; see `recipes.checks.check`."""
    domain, _ = choose_task(settings)
    if not domain.closed_book:
        raise InvalidInput(f"domain is {settings.domain!r}, where nothing is learned for good; recipe watch is for texts")
    if not Path(settings.inbox or "?").is_dir():
        raise InvalidInput(f"inbox is {settings.inbox!r}, which is no folder; give one: tutelage watch INBOX")
    read_schedule(settings.every, settings.window)
    if settings.student.merge:
        raise InvalidInput("student.merge is true, but a student learns on from adapters; leave it out, and merge by tutelage publish")
    check_local_student(settings.student, "student", fetch=fetch)
    if settings.teacher.edits:
        raise InvalidInput(
            f"teacher.edits is {settings.teacher.edits!r}, but nothing is written yet of what is to come; give teacher.model"
        )
    choose_style(settings.teacher.style, domain)
    check_teacher(settings.teacher, "teacher", domain, fetch=fetch)
    _check_keeping(settings.keeping, "keeping", fetch)
    check_gate(settings.gate, "gate")
    for key in ("known", "others"):
        if getattr(settings, key).source:
            load_data(domain, getattr(settings, key), key, questions=key == "known", fetch=fetch)
    window = f", within {settings.window}" if settings.window else ""
    return f"teach {settings.student.model} what comes into {settings.inbox}, every {settings.every}{window}"


def check_try_gate(settings: TryGate, fetch: bool) -> str:
    """What would run; see `recipes.checks.check`."""
    if settings.domain != "knowledge":
        raise InvalidInput(
            f"domain is {settings.domain!r}, but self-edits are planted about people of the tiny world; set domain=knowledge"
        )
    choose_task(settings)
    _check_student_here(settings.student, settings.recipe, fetch)
    _check_keeping(settings.keeping, "keeping", fetch)
    check_gate(settings.gate, "gate")
    if settings.edits < 1:
        raise InvalidInput(f"edits is {settings.edits}; it must be at least 1")
    if settings.split not in TRIED:
        raise InvalidInput(f"split is {settings.split!r}; it is one of {', '.join(TRIED)}")
    shares = {f"harm.{item.name}": getattr(settings.harm, item.name) for item in fields(settings.harm)}
    for key, share in shares.items():
        if not 0 <= share < 1:
            raise InvalidInput(f"{key} is {share}; it must be in [0, 1)")
    return f"{settings.edits} inner loops, each from a planted self-edit, and a gate's questions about each"


def check_use(settings: TrainTeacher, domain: RecipeDomain) -> str:
    """What a round on what was used would do."""
    use = settings.use
    if not domain.closed_book:
        raise InvalidInput(f"use.line is {use.line!r}, but domain {domain.name} has no students that keep learning; leave use out")
    if settings.selection != "best":
        raise InvalidInput(f"selection is {settings.selection!r}, but what use says is there to select the best; leave one of them out")
    versions = read_line(Path(use.line)).versions
    if not versions:
        raise InvalidInput(f"use.line is {use.line!r}, which has no version yet, so nobody can have used one")
    for number, path in enumerate(use.feedback):
        if not Path(path).is_file():
            raise InvalidInput(f"use.feedback[{number}] is {path!r}, which is no file; give JSONL files of feedback")
    if use.test:
        resolve_command(use.test, "use.test")
    if settings.net.is_weighted and not settings.rounds and use.weight == 1:
        raise InvalidInput("net has weights, but with rounds=0 and use.weight=1 no self-edit is tried; leave net out, or lower use.weight")
    learned = len({(lesson.context, lesson.edit.id) for record in versions.values() for lesson in record.lessons})
    loops = f", up to {learned * settings.repeats} inner loops" if use.weight < 1 else ""
    told = f"one round on up to {learned} self-edits of {len(versions)} versions that were in use"
    return f"{told}{loops}, and one finetuning of the teacher"


def _check_student_here(student: StudentChoice, recipe: str, fetch: bool) -> None:
    if not student.is_local:
        raise InvalidInput(f"student.exchange is {student.exchange!r}, but recipe {recipe} trains its students here; set it to local")
    check_local_student(student.here, "student", fetch=fetch)
