"""What a recipe would cost on a GPU, reckoned before anything is fetched or run: steps, tokens, memory, hours.

A rough reckoning, from the sizes of models and texts alone, and a floor: start-up, optimizers and small steps come on top. Of one H100:
half of its memory bandwidth where a model writes, 40% of its arithmetic where it reads or trains. Texts are taken to be as SEAL's
released ones (200 SQuAD passages with 1000 self-edits).
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from protocol.messages import Context
from recipes.base_settings import RecipeSettings, StudentChoice
from recipes.compare_settings import Compare, Transfer, count_trained, usable_baselines
from recipes.loop_settings import LoopSettings
from recipes.memory import CHARACTERS_PER_TOKEN
from recipes.settings import AdaptStudent, Experiment, TrainTeacher, WriteQuestions
from teacher.settings import FinetuneSettings, TeacherSettings

FLOPS: Final = 4e14
BYTES_PER_SECOND: Final = 1.7e12
EDIT_PER_PASSAGE: Final = 1.4
LINES_PER_EDIT: Final = 7.4
BYTES_PER_TRAINED: Final = 16
"""A weight in float32, its gradient and two moments."""
QUESTION_TOKENS: Final = 40
ANSWER_TOKENS: Final = 25
_BYTES: Final = {"float32": 4, "bfloat16": 2, "float16": 2}
_NAMED_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)([bm])(?![a-z0-9])", re.IGNORECASE)


@dataclass(frozen=True)
class Sizes:
    """Of one source of contexts: how many there are, and means of one."""

    contexts: int
    passage_tokens: float
    questions: float

    @property
    def edit_tokens(self) -> float:
        return EDIT_PER_PASSAGE * self.passage_tokens


@dataclass(frozen=True)
class Phase:
    """Some work of one kind.

    Attributes:
        who: `teacher` or `student`, and which model that is.
        rank: Of the adapter that is trained.
        pieces: Candidates, inner loops, answers or self-edits.
        steps: Optimizer steps.
        read, written, trained: Tokens.
        together: How many sequences are written at once.
        price: What an endpoint asks for it; None if it is done in the run's own processes.
    """

    what: str
    who: str
    model: str
    dtype: str
    pieces: float
    rank: int = 0
    steps: float = 0.0
    read: float = 0.0
    written: float = 0.0
    trained: float = 0.0
    together: int = 1
    price: float | None = None

    def seconds(self, parameters: float) -> float:
        """A trained token takes 4 operations per parameter, since the base is frozen; one read 2; weights are read once per batch."""
        arithmetic = (4 * self.trained + 2 * self.read + 2 * self.written) * parameters / FLOPS
        return arithmetic + self.written / self.together * parameters * _BYTES[self.dtype] / BYTES_PER_SECOND


def measure_contexts(contexts: Sequence[Context]) -> Sizes:
    """Sizes of contexts, from their characters."""
    count = max(1, len(contexts))
    characters = sum(len(context.passage) for context in contexts) / count
    return Sizes(len(contexts), characters / CHARACTERS_PER_TOKEN, sum(len(context.questions) for context in contexts) / count)


def list_phases(settings: RecipeSettings, sizes: Mapping[str, Sizes]) -> list[Phase]:
    """The work of a recipe; `sizes` by the key of each source."""
    match settings:
        case TrainTeacher():
            if "contexts" not in sizes:  # a round on what was used alone
                return []
            return list(_training(settings, settings.teacher, settings.finetune, [settings.student], sizes["contexts"], settings.repeats))
        case Experiment():
            return list(_experiment(settings, sizes))
        case Transfer():
            return list(_transfer(settings, sizes))
        case Compare():
            return list(_compare(settings, sizes["contexts"]))
        case AdaptStudent():
            size, loops = sizes["contexts"], settings.repeats if settings.use == "best" else 0
            pieces = size.contexts * settings.candidates
            scored = _learn(settings.student, size, pieces * loops) if loops else []
            return [*_write(settings.teacher, size, pieces), *scored, *_learn(settings.student, size, pieces)]
        case WriteQuestions():
            size = sizes["contexts"]
            pieces, loops = size.contexts * settings.samples, size.contexts * settings.compared
            scored = [*_write(settings.teacher, size, loops), *_learn(settings.student, size, loops * settings.repeats)] if loops else []
            return [*_write(settings.writer, size, pieces), _answer(settings.student, size, 2 * pieces), *scored]
    return []


def _training(
    loop: LoopSettings, teacher: TeacherSettings, finetune: FinetuneSettings, students: Sequence[StudentChoice], size: Sizes, repeats: int
) -> Iterator[Phase]:
    used = loop.rounds * min(loop.contexts_per_round, size.contexts)
    yield from _write(teacher, size, used * loop.candidates)
    for student in students:
        yield from _learn(student, size, used * loop.candidates * repeats)
    kept = used * min(loop.keep_per_context, loop.candidates)
    tokens = kept * finetune.epochs * (size.passage_tokens + size.edit_tokens)
    steps = kept * finetune.epochs / finetune.step_size
    yield Phase("finetuning", "teacher", teacher.model, teacher.dtype, kept, finetune.rank, steps, trained=tokens)


def _experiment(settings: Experiment, sizes: Mapping[str, Sizes]) -> Iterator[Phase]:
    held_out, candidates = sizes["held_out"], settings.held_out_candidates
    teachers = 3 + settings.net.is_weighted
    learned = teachers * candidates + count_trained(settings.baselines, candidates)
    for _ in settings.seeds:
        yield from _training(settings, settings.teacher, settings.finetune, [], sizes["train"], settings.repeats)  # kept by lot
        for _ in range(teachers - 2):
            yield from _training(settings, settings.teacher, settings.finetune, [settings.student], sizes["train"], settings.repeats)
        yield from _write(
            settings.teacher, held_out, held_out.contexts * candidates * (teachers + ("matched_paraphrase" in settings.baselines))
        )
        for student in [settings.student] + ([settings.new_student] if settings.new_student.label else []):
            yield from _learn(student, held_out, held_out.contexts * learned * settings.held_out_repeats)


def _transfer(settings: Transfer, sizes: Mapping[str, Sizes]) -> Iterator[Phase]:
    held_out = sizes["held_out"]
    for _ in settings.seeds:
        for teacher in settings.teachers.values():
            if teacher.is_trained_here:
                own = [settings.students[name] for name in teacher.trained_for]
                yield from _training(settings, teacher, settings.finetune, own, sizes["train"], settings.repeats)
            yield from _write(teacher, held_out, held_out.contexts)
        for student in settings.students.values():
            yield from _learn(student, held_out, held_out.contexts * len(settings.teachers) * settings.held_out_repeats)


def _compare(settings: Compare, size: Sizes) -> Iterator[Phase]:
    baselines, _ = usable_baselines(settings)
    written, conditions = size.contexts * settings.candidates, len(settings.teachers) + count_trained(baselines)
    alone = len(settings.teachers) * settings.candidates + count_trained(baselines, settings.candidates)
    learned = written * conditions if settings.passages == "together" else size.contexts * alone
    for _ in settings.seeds:
        for teacher in settings.teachers.values():
            yield from _write(teacher, size, written)
        if "matched_paraphrase" in baselines:
            yield from _write(next(teacher for teacher in settings.teachers.values() if not teacher.edits), size, written)
        for student in settings.students.values():
            loops, answers = _learn(student, size, learned * settings.repeats)
            if settings.passages == "together":
                loops = replace(loops, what="lasting updates", pieces=conditions * settings.repeats)
                answers = _answer(student, size, size.contexts * conditions * settings.repeats)
            yield from (loops, answers)


def _write(teacher: TeacherSettings, size: Sizes, pieces: float) -> list[Phase]:
    """Nothing, if the teacher is a file."""
    written, read = pieces * min(size.edit_tokens, teacher.max_new_tokens), pieces * size.passage_tokens
    phase = Phase("writing", "teacher", teacher.label, teacher.dtype, pieces, read=read, written=written, together=teacher.batch_size)
    if teacher.is_at_endpoint:
        price = (read * teacher.endpoint.price_in + written * teacher.endpoint.price_out) / 1e6
        phase = replace(phase, what="writing at an endpoint", price=price)
    return [] if teacher.edits else [phase]


def _learn(student: StudentChoice, size: Sizes, pieces: float) -> list[Phase]:
    """Inner loops with their answers, and the base's answers once."""
    tokens = pieces * student.epochs * (size.passage_tokens + size.edit_tokens)
    steps = pieces * student.epochs * math.ceil((LINES_PER_EDIT + 1) / student.batch_size)
    loops = Phase("inner loops", "student", student.label, student.dtype, pieces, student.rank, steps, trained=tokens)
    return [loops, _answer(student, size, pieces)]


def _answer(student: StudentChoice, size: Sizes, pieces: float) -> Phase:
    asked = pieces * size.questions
    return Phase(
        "answers",
        "student",
        student.label,
        student.dtype,
        asked,
        read=asked * QUESTION_TOKENS,
        written=asked * ANSWER_TOKENS,
        together=student.answer_batch,
    )


def count_parameters(model: str) -> float | None:
    """Of a folder what its weights hold, or its base's if it is an adapter; of a hub name what it says, such as 7B; else None."""
    folder = Path(model)
    if (folder / "adapter_config.json").exists():
        return count_parameters(json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"])
    if folder.is_dir():
        from safetensors import safe_open

        total = 0
        for path in folder.glob("model*.safetensors"):
            with safe_open(path, framework="np") as weights:
                total += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())
        return float(total) or None
    named = _NAMED_SIZE.search(model.rsplit("/", 1)[-1])
    return float(named[1]) * {"b": 1e9, "m": 1e6}[named[2].lower()] if named else None


def describe_costs(phases: Sequence[Phase]) -> str:
    """A line for each kind of work and model, then memory and hours in all."""
    here = [phase for phase in phases if phase.price is None]
    sizes = {phase.model: count_parameters(phase.model) for phase in here}
    groups: dict[tuple[str, str, str], list[Phase]] = {}
    for phase in phases:
        groups.setdefault((phase.what, phase.who, phase.model), []).append(phase)
    lines, hours = [], 0.0
    for (what, who, model), own in groups.items():
        prices = [phase.price for phase in own if phase.price is not None]
        size = None if prices else sizes[model]
        sums = {name: sum(getattr(phase, name) for phase in own) for name in ("pieces", "steps", "trained", "written")}
        told = [f"{sums['pieces']:,.0f}"] + ([f"{sums['steps']:,.0f} steps"] if sums["steps"] else [])
        told += [f"{sums[name] / 1e6:,.1f}M tokens {name}" for name in ("trained", "written") if sums[name]]
        if size:
            spent = sum(phase.seconds(size) for phase in own) / 3600
            hours += spent
            told.append(f"{spent:.2f} h")
        if prices:
            told.append(f"{sum(phase.read for phase in own) / 1e6:,.1f}M tokens read, cost {sum(prices):,.2f} by the recipe's prices")
        lines.append(f"  {what} ({who} {model}): {', '.join(told)}")
    weights = {(phase.who, phase.model): (sizes[phase.model] or 0) * _BYTES[phase.dtype] for phase in here}
    trained = {(phase.who, phase.what): count_adapter(sizes[phase.model] or 0, phase.rank) * BYTES_PER_TRAINED for phase in here}
    adapters = [f"{size / 1e9:.1f} GB for each adapter of a {who} in training ({what})" for (who, what), size in trained.items() if size]
    lines.append(
        f"  in all at least {hours:.2f} hours of one H100, if it did {FLOPS / 1e12:.0f} TFLOP/s and {BYTES_PER_SECOND / 1e12:.1f} TB/s "
        f"throughout, with self-edits {EDIT_PER_PASSAGE} times as long as passages"
    )
    memory = [f"{sum(weights.values()) / 1e9:.1f} GB for the weights of all models", *adapters]
    lines.append(f"  memory: {', '.join(memory)}; activations on top")
    if unknown := [model for model, size in sizes.items() if size is None]:
        lines.append(f"  without {', '.join(unknown)}, whose size is not known here")
    return "\n".join(lines)


def count_adapter(parameters: float, rank: int) -> float:
    """Parameters of a LoRA adapter on all linear layers of a usual model, 128 times as wide as it is deep, with MLPs 3.5 times as wide."""
    width: float = (128 * parameters / 12) ** (1 / 3)
    return width / 128 * rank * width * (4 * 2 + 3 * 4.5)
