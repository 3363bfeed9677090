"""Check all that a recipe needs before any work, and say what would run. Torch-free, so the answer comes at once."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from protocol.errors import InvalidInput
from protocol.identity import content_id
from protocol.messages import Context
from recipes.base_settings import DataSettings, RecipeSettings
from recipes.compare_settings import BASELINES, Compare, Transfer, count_trained, usable_baselines
from recipes.costs import describe_costs, list_phases, measure_contexts
from recipes.domains import RecipeDomain, open_domain
from recipes.editor import check_editor
from recipes.inputs import (
    STAND_IN,
    check_edit,
    check_judge_model,
    check_student,
    check_teacher,
    choose_style,
    choose_task,
    load_data,
)
from recipes.learning_checks import check_continual, check_try_gate, check_use, check_watch
from recipes.learning_settings import Continual, TryGate, Watch
from recipes.loop_settings import LoopSettings, NetReward
from recipes.machine_checks import check_bench, check_pretrain, check_serve
from recipes.machine_settings import Bench, Pretrain, Serve
from recipes.memory import Use, choose_memory
from recipes.run_folder import check_run_folder
from recipes.settings import AdaptStudent, Experiment, TrainTeacher, WriteQuestions
from recipes.zero_configs import check_config, zero_stage
from student.store import read_store
from teacher.settings import FinetuneSettings, TeacherSettings


def check(settings: RecipeSettings, processes: int = 1, fetch: bool = True) -> str:
    """Check a recipe's input, and whether so many processes can run it.

    Args:
        fetch: Whether what is named on a hub is fetched and checked too; it is taken as good otherwise.

    Returns:
        What would run and what it would cost, in inner loops.

    Raises:
        InvalidInput: Names the key, the value and the remedy. Nothing has been created.
    """
    check_run_folder(settings)
    domain = open_domain(settings.domain, settings.grids)
    check_editor(settings, domain)
    if isinstance(settings, LoopSettings):
        _check_net(settings.net, domain, fetch)
    if settings.asks_judge:
        check_judge_model(settings.judge, fetch=fetch)
    finetuned = settings.teacher.dtype if isinstance(settings, TrainTeacher | Experiment) else "float32"
    check_config(settings.distributed.deepspeed, "distributed.deepspeed", finetuned)
    match settings:
        case TrainTeacher():
            return _check_train_teacher(settings, processes, fetch)
        case AdaptStudent():
            return _check_adapt_student(settings, fetch)
        case Compare():
            return _check_compare(settings, fetch)
        case Transfer():
            return _check_transfer(settings, processes, fetch)
        case WriteQuestions():
            return _check_write_questions(settings, fetch)
        case Experiment():
            return _check_experiment(settings, processes, fetch)
        case Continual():
            return check_continual(settings, fetch)
        case Watch():
            _need_one(processes, settings.recipe)
            return check_watch(settings, fetch)
        case TryGate():
            _need_one(processes, settings.recipe)
            return check_try_gate(settings, fetch)
        case Pretrain():
            _need_one(processes, settings.recipe)
            return check_pretrain(settings)
        case Bench():
            _need_one(processes, settings.recipe)
            return check_bench(settings, fetch)
        case Serve():
            return check_serve(settings, fetch)
    raise NotImplementedError(f"no check for {type(settings).__name__}")


def estimate(settings: RecipeSettings) -> str:
    """What a recipe would cost, without fetching anything."""
    domain, _ = choose_task(settings)
    if not domain.closed_book:
        return "no estimate of hours: what an inner loop costs is what its self-edit asks for, up to student.max_steps steps"
    sources = {
        key: getattr(settings, key) for key in ("contexts", "train", "held_out") if getattr(getattr(settings, key, None), "source", "")
    }
    sizes = {key: measure_contexts(load_data(domain, data, key, questions=False, fetch=False)[0]) for key, data in sources.items()}
    phases = list_phases(settings, sizes)
    return describe_costs(phases) if phases else ""


def _check_train_teacher(settings: TrainTeacher, processes: int, fetch: bool) -> str:
    _check_finetuning(settings, processes)
    domain, task = choose_task(settings)
    choose_style(settings.teacher.style, domain)
    check_teacher(settings.teacher, "teacher", domain, fetch=fetch, is_trained=True)
    check_student(settings.student, "student", task, fetch=fetch)
    first = check_use(settings, domain) if settings.use.line else ""
    if not settings.rounds:
        return first
    contexts, _ = load_data(domain, settings.contexts, "contexts", questions=True, fetch=fetch)
    used = min(settings.contexts_per_round, len(contexts))
    written = used * settings.candidates
    return (
        (f"{first}, then " if first else "")
        + f"{settings.rounds} rounds, each with {written} self-edits on {used} of {len(contexts)} contexts, "
        f"up to {written * settings.repeats} inner loops, and one finetuning of the teacher"
    )


def _check_adapt_student(settings: AdaptStudent, fetch: bool) -> str:
    domain, task = choose_task(settings)
    choose_style(settings.teacher.style, domain)
    contexts, _ = load_data(domain, settings.contexts, "contexts", questions=settings.use == "best", fetch=fetch)
    if settings.memory.choice != "weights" and not domain.closed_book:
        raise InvalidInput(
            f"memory.choice is {settings.memory.choice!r}, but domain {settings.domain} has its contexts in view; leave it out"
        )
    if settings.memory.store:
        read_store(Path(settings.memory.store))
    uses = domain.load_uses(settings.contexts.source)
    learned = [c for c in contexts if choose_memory(c, uses.get(c.id, Use()), settings.memory).is_learned]
    check_teacher(settings.teacher, "teacher", domain, learned, settings.candidates, fetch=fetch)
    check_student(settings.student, "student", task, fetch=fetch)
    written = len(learned) * settings.candidates
    loops = written * settings.repeats if settings.use == "best" else 0
    updates = "one lasting update" if settings.passages == "together" else f"{len(learned)} lasting updates"
    looked_up = f", {len(contexts) - len(learned)} contexts looked up" if len(learned) < len(contexts) else ""
    return f"{written} self-edits on {len(learned)} contexts, {loops} inner loops, {updates}{looked_up}"


def _check_compare(settings: Compare, fetch: bool) -> str:
    domain, task = choose_task(settings)
    contexts, references = load_data(domain, settings.contexts, "contexts", questions=True, fetch=fetch)
    if settings.retention.source:
        load_data(domain, settings.retention, "retention", questions=True, fetch=fetch)
    if not settings.teachers or not settings.students:
        raise InvalidInput("compare needs teachers and students, such as teachers.mine.model=FOLDER students.ours.model=FOLDER")
    _check_baselines(domain, settings.baselines, settings.retention)
    _refuse_names("teachers", settings.teachers, ("no_edit", "reference_edits", *BASELINES))
    _refuse_names("students", settings.students, ("recipe", "name", "seeds", "spending", "inner_loops", "wall_seconds"))
    _need_two("contexts", len(contexts))
    for name, teacher in settings.teachers.items():
        choose_style(teacher.style, domain, f"teachers.{name}.style")
        check_teacher(teacher, f"teachers.{name}", domain, contexts, settings.candidates, fetch=fetch)
    for name, student in settings.students.items():
        check_student(student, f"students.{name}", task, fetch=fetch)
    baselines, _ = usable_baselines(settings)
    learned = len(settings.teachers) + bool(references) + count_trained(baselines)
    alone = len(settings.teachers) * settings.candidates + bool(references) + count_trained(baselines, settings.candidates)
    times = len(settings.students) * settings.repeats * len(settings.seeds)
    cost = f"{learned * times} lasting updates" if settings.passages == "together" else f"{alone * len(contexts) * times} inner loops"
    return f"{learned} conditions on {len(contexts)} contexts and {len(settings.students)} students: {cost}"


def _check_transfer(settings: Transfer, processes: int, fetch: bool) -> str:
    domain, task = choose_task(settings)
    contexts, _ = load_data(domain, settings.held_out, "held_out", questions=True, fetch=fetch)
    if not settings.teachers or not settings.students:
        raise InvalidInput("transfer needs teachers and students, such as teachers.mine.adapter=FOLDER students.ours.model=FOLDER")
    _refuse_names("teachers", settings.teachers, ("no_edit",))
    if settings.baseline and settings.baseline not in settings.teachers:
        raise InvalidInput(f"baseline is {settings.baseline!r}; it is one of {', '.join(settings.teachers)}, or empty")
    training = 0
    for name, teacher in settings.teachers.items():
        choose_style(teacher.style, domain, f"teachers.{name}.style")
        check_teacher(teacher, f"teachers.{name}", domain, contexts, fetch=fetch, is_trained=teacher.is_trained_here)
        if unknown := [student for student in teacher.trained_for if student not in settings.students]:
            raise InvalidInput(f"teachers.{name}.trained_for has {unknown[0]!r}; it is one of {', '.join(settings.students)}")
        if teacher.is_trained_here:
            check_config(settings.distributed.deepspeed, "distributed.deepspeed", teacher.dtype)
            _check_division(settings.finetune, settings.distributed.deepspeed, teacher, processes, f"teachers.{name}")
            _refuse_common(load_data(domain, settings.train, "train", questions=True, fetch=fetch)[0], contexts)
            training += settings.rounds * settings.contexts_per_round * settings.candidates * settings.repeats * len(teacher.trained_for)
    for name, student in settings.students.items():
        check_student(student, f"students.{name}", task, fetch=fetch)
    cells = len(settings.teachers) * len(settings.students)
    return (
        f"for each of {len(settings.seeds)} seeds: up to {training} inner loops to train teachers and "
        f"{cells * len(contexts) * settings.held_out_repeats} for {len(settings.teachers)} teachers on {len(settings.students)} students"
    )


def _check_write_questions(settings: WriteQuestions, fetch: bool) -> str:
    domain, task = choose_task(settings)
    if not domain.closed_book:
        raise InvalidInput(f"domain is {settings.domain!r}, but questions are written for texts; set domain=knowledge")
    contexts, _ = load_data(domain, settings.contexts, "contexts", questions=False, fetch=fetch)
    if settings.compared and (bare := next((c for c in contexts if not any(q.answers for q in c.questions)), None)):
        raise InvalidInput(
            f"compared is {settings.compared}, but context {bare.label!r} has no question of its own to compare with; set compared=0"
        )
    choose_style(settings.writer.style, domain, "writer.style")
    check_teacher(settings.writer, "writer", domain, contexts, settings.samples, fetch=fetch)
    check_student(settings.student, "student", task, fetch=fetch)
    told = f"{settings.samples * len(contexts)} texts of questions on {len(contexts)} contexts"
    if not settings.compared:
        return told
    if settings.repeats < 2:
        raise InvalidInput(f"repeats is {settings.repeats}, but comparing questions takes 2 at least; set repeats=2 or compared=0")
    choose_style(settings.teacher.style, domain)
    check_teacher(settings.teacher, "teacher", domain, contexts, settings.compared, fetch=fetch)
    return f"{told}, and {len(contexts) * settings.compared * settings.repeats} inner loops to see how they rank self-edits"


def _check_experiment(settings: Experiment, processes: int, fetch: bool) -> str:
    _check_finetuning(settings, processes)
    domain, task = choose_task(settings)
    choose_style(settings.teacher.style, domain)
    trained_on, _ = load_data(domain, settings.train, "train", questions=True, fetch=fetch)
    contexts, references = load_data(domain, settings.held_out, "held_out", questions=True, fetch=fetch)
    _refuse_common(trained_on, contexts)
    if settings.retention.source:
        load_data(domain, settings.retention, "retention", questions=True, fetch=fetch)
    _check_baselines(domain, settings.baselines, settings.retention)
    if settings.lasting and not domain.closed_book:
        raise InvalidInput(f"lasting is {settings.lasting}, one adapter for several contexts, which is for texts; set lasting=0")
    _need_two("held_out", len(contexts))
    for number, text in enumerate(settings.constants):
        check_edit(domain, text, contexts[0], f"constants[{number}]")
    check_teacher(settings.teacher, "teacher", domain, fetch=fetch, is_trained=True)
    check_student(settings.student, "student", task, fetch=fetch)
    if settings.new_student.label:
        check_student(settings.new_student, "new_student", task, fetch=fetch)
    plain = settings.net.is_weighted  # a control is trained on plain rewards
    training = (1 + plain) * settings.rounds * settings.contexts_per_round * settings.candidates * settings.repeats
    learned = (3 + plain) * settings.held_out_candidates + bool(references) + bool(settings.constants)
    learned += count_trained(settings.baselines, settings.held_out_candidates)
    evaluation = (2 if settings.new_student.label else 1) * learned * len(contexts) * settings.held_out_repeats
    chosen = len(settings.constants) * len(trained_on) * settings.repeats
    constants = f", {chosen} to choose a constant" if chosen else ""
    whom = "the teacher and its control on plain rewards" if plain else "the teacher"
    return f"for each of {len(settings.seeds)} seeds: up to {training} inner loops to train {whom}{constants} and {evaluation} to compare"


def _check_net(net: NetReward, domain: RecipeDomain, fetch: bool) -> None:
    if net.is_weighted and not domain.closed_book:
        raise InvalidInput(f"net has weights, but domain {domain.name} has nothing known by heart that could be lost; leave net out")
    if net.retention:
        load_data(domain, net.known, "net.known", questions=True, fetch=fetch)


def _check_finetuning(settings: TrainTeacher | Experiment, processes: int) -> None:
    if settings.teacher.edits:
        raise InvalidInput(
            f"teacher.edits is {settings.teacher.edits!r}, but a file cannot be finetuned; give teacher.model, or run compare"
        )
    _check_division(settings.finetune, settings.distributed.deepspeed, settings.teacher, processes)


def _check_division(
    finetune: FinetuneSettings, deepspeed: str | None, teacher: TeacherSettings, processes: int, key: str = "teacher"
) -> None:
    finetune.divide(processes)
    if teacher.is_at_endpoint and not finetune.lora:
        raise InvalidInput(
            f"finetune.lora is false, but {key} writes at an endpoint, which takes adapters alone; set it to true, "
            f"or {key}.endpoint.base_url=null"
        )
    if zero_stage(deepspeed) == 3 and not finetune.lora and teacher.adapter is not None:
        raise InvalidInput("finetune.lora is false under ZeRO stage 3, which cannot merge teacher.adapter; give the merged model instead")


def _need_one(processes: int, recipe: str) -> None:
    if processes > 1:
        raise InvalidInput(f"recipe {recipe} runs in one process, but {processes} were started; start one")


def _refuse_names(key: str, names: Iterable[str], reserved: Sequence[str]) -> None:
    for name in names:
        if name in reserved:
            raise InvalidInput(f"{key}.{name}: the name {name!r} means something else in the report; choose another")


def _check_baselines(domain: RecipeDomain, baselines: Sequence[str], retention: DataSettings) -> None:
    """See that a domain has the baselines: where the context is in view, only another context's self-edits are one."""
    if domain.closed_book:
        return
    if strange := [name for name in baselines if name != "other_context"]:
        raise InvalidInput(f"baselines has {strange[0]!r}, which is for texts; domain {domain.name} has other_context alone, or []")
    if retention.source:
        raise InvalidInput(f"retention.source is {retention.source!r}, but domain {domain.name} has nothing known by heart; leave it out")


def _refuse_common(train: Sequence[Context], held_out: Sequence[Context]) -> None:
    """Held-out contexts are those that nothing was chosen on. What is on a hub is not read here."""
    known = {content_id(context.passage, [pair.model_dump() for pair in context.demonstrations]) for context in train}
    for context in held_out:
        told = content_id(context.passage, [pair.model_dump() for pair in context.demonstrations])
        if told in known and context.passage != STAND_IN.passage:
            raise InvalidInput(
                f"held_out.source has {context.label!r}, which train.source has too, so it is not held out; take others for one of them"
            )


def _need_two(key: str, count: int) -> None:
    if count < 2:
        raise InvalidInput(f"{key} has {count} context; comparing needs at least 2, since one's self-edit is tried on another")
