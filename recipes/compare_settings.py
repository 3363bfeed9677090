"""What comparisons may set. Torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from recipes.base_settings import DataSettings, RecipeSettings, StudentChoice
from recipes.loop_settings import LoopSettings
from student.settings import RetrievalSettings
from teacher.settings import FinetuneSettings, TeacherSettings

BASELINES: Final = (
    "passage_only",
    "matched_passage",
    "matched_paraphrase",
    "in_context",
    "retrieval",
    "weights_and_retrieval",
    "other_context",
)
"""What teachers are compared with. `matched_…` train on as many tokens as the last teacher's self-edits make. `in_context` and `retrieval`
train on none: the one is handed the passage, the other has in view what is found in a store of all passages. `weights_and_retrieval` has
both the last teacher's self-edits and the store. `other_context` learns from the last teacher's self-edits about another context.
"""


@dataclass
class Compare(RecipeSettings):
    """Compare teachers and baselines on students.

    Attributes:
        teachers: By condition name. The last one is compared with all others, and sets their compute.
        retention: Contexts whose questions the students know before; without a source it is not measured.
        baselines: Any of `BASELINES`.
        passages: An inner loop for each context, or one adapter for all of them `together`.
        candidates: Self-edits per context by each teacher, and paraphrases. Single, each has inner loops of its own and their mean counts;
            together, one adapter learns all of them.
        retrieval: How questions are looked up, for the baselines with a store.
        pictures: Of so many contexts, in domains that have pictures.
    """

    seeds: list[int] = field(default_factory=lambda: [0])
    baselines: list[str] = field(default_factory=lambda: list(BASELINES))
    passages: Literal["single", "together"] = "single"
    candidates: int = 1
    retrieval: RetrievalSettings = field(default_factory=RetrievalSettings)
    pictures: int = 6
    contexts: DataSettings = field(default_factory=DataSettings)
    retention: DataSettings = field(default_factory=DataSettings)
    teachers: dict[str, TeacherSettings] = field(default_factory=dict)
    students: dict[str, StudentChoice] = field(default_factory=dict)


def count_trained(baselines: Sequence[str], candidates: int = 1) -> int:
    """How many of the baselines train a student; or what they train it on for each context, some of them on as many as `candidates`."""
    several = ("matched_paraphrase", "weights_and_retrieval")
    return sum(candidates if name in several else 1 for name in baselines if name not in ("in_context", "retrieval"))


def usable_baselines(settings: Compare) -> tuple[list[str], list[str]]:
    """The baselines that a comparison can have of those asked for, and why not the others."""
    wanted, left_out = list(settings.baselines), []
    if "matched_paraphrase" in wanted and all(teacher.edits for teacher in settings.teachers.values()):
        wanted.remove("matched_paraphrase")
        left_out.append("matched_paraphrase is left out: no teacher is a model that could paraphrase")
    if "other_context" in wanted and settings.passages == "together":
        wanted.remove("other_context")
        left_out.append("other_context, leakage and retention are left out: one adapter learns all contexts together")
    return wanted, left_out


@dataclass
class TransferTeacher(TeacherSettings):
    """A row of the matrix.

    Attributes:
        trained_for: Its own students. Without `adapter` and `edits` it is trained for them first, on the mean of their rewards.
    """

    trained_for: list[str] = field(default_factory=list)

    @property
    def is_trained_here(self) -> bool:
        """Whether it has yet to be trained, rather than comes frozen."""
        return bool(self.trained_for) and not self.adapter and not self.edits


@dataclass
class Transfer(RecipeSettings, LoopSettings):
    """A matrix of teachers and students: what a teacher is worth to students that it was not trained for.

    Attributes:
        train: What teachers are trained on, if any are.
        baseline: The teacher over which gains are counted; empty means no edit.
        held_out_repeats: Inner loops per self-edit in the matrix, where `repeats` is for training.
    """

    seeds: list[int] = field(default_factory=lambda: [0])
    train: DataSettings = field(default_factory=DataSettings)
    held_out: DataSettings = field(default_factory=DataSettings)
    teachers: dict[str, TransferTeacher] = field(default_factory=dict)
    students: dict[str, StudentChoice] = field(default_factory=dict)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    baseline: str = ""
    held_out_repeats: int = 1
