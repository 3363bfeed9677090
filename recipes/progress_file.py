"""How far a sequence of updates has come: one file that has what every student knows, and how all answered after each update.

It is replaced whole after every update, so a run that was killed goes on from the last one, and makes none twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from protocol.errors import InvalidInput
from protocol.files import replace_file
from protocol.messages import Lesson
from recipes.exam import Step
from student.keeping import Learned

_STEPS = TypeAdapter(tuple[Step, ...])


@dataclass(frozen=True)
class Progress:
    """What students know after so many steps."""

    students: tuple[Learned, ...]
    steps: tuple[Step, ...]


def write_progress(path: Path, progress: Progress) -> None:
    tensors = {
        f"{number}.{layer}.{name}": matrix.contiguous()
        for number, student in enumerate(progress.students)
        for layer, pair in enumerate(student.adapter)
        for name, matrix in zip("AB", pair, strict=True)
    }
    unfinished = path.with_name(path.name + ".tmp")
    save_file(tensors, unfinished, metadata={"steps": _STEPS.dump_json(progress.steps).decode()})
    replace_file(unfinished, path)


def read_progress(path: Path, sequences: Sequence[Sequence[Lesson]]) -> Progress | None:
    """What was written last; None if nothing was.

    Args:
        sequences: The lessons that each student learns, in order.

    Raises:
        InvalidInput: The file is damaged.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            steps = _STEPS.validate_json(file.metadata()["steps"])
            layers = len(file.keys()) // 2 // len(sequences)
            adapters = [
                [(file.get_tensor(f"{number}.{layer}.A"), file.get_tensor(f"{number}.{layer}.B")) for layer in range(layers)]
                for number in range(len(sequences))
            ]
    except (SafetensorError, ValidationError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path} is damaged ({error}); remove it, and its strategy starts anew") from error
    learned = [
        tuple(lesson for lesson, step in zip(sequence, steps[1:], strict=False) if not step.refused[number])
        for number, sequence in enumerate(sequences)
    ]
    return Progress(tuple(map(Learned, learned, adapters)), steps)
