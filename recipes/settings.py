"""What a recipe may set, typed. Torch-free: recipe files, `--help` and tests read it too.

A recipe file's `recipe:` key says which class below reads it, and which file in `recipes/` runs it (`RECIPES`).
"""

from dataclasses import dataclass, field
from typing import Literal

from recipes.base_settings import DataSettings, RecipeSettings, StudentChoice
from recipes.compare_settings import Compare, Transfer
from recipes.learning_settings import Continual, TryGate, Watch
from recipes.loop_settings import LoopSettings, UseSettings
from recipes.machine_settings import Bench, Pretrain, Serve
from recipes.memory import MemorySettings
from student.settings import RetrievalSettings
from teacher.settings import FinetuneSettings, TeacherSettings


@dataclass
class TrainTeacher(RecipeSettings, LoopSettings):
    """Train a teacher for a target student.

    Attributes:
        next_recipe: The recipe file that adapts a student with it, which the user is pointed to; empty means the domain's tiny one.
        use: What people made of a student's answers, for a first round. With it `rounds` may be 0.
    """

    seed: int = 0
    next_recipe: str = ""
    use: UseSettings = field(default_factory=UseSettings)
    selection: Literal["best", "random"] = "best"
    contexts: DataSettings = field(default_factory=DataSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    student: StudentChoice = field(default_factory=StudentChoice)

    @property
    def fewest_rounds(self) -> int:
        return 0 if self.use.line else 1


@dataclass
class AdaptStudent(RecipeSettings):
    """Adapt a student with a frozen teacher; it ends in a PEFT folder or a merged model.

    Attributes:
        passages: One adapter for all contexts `together`, or a `single` one for each.
        candidates: Self-edits sampled per context.
        use: `all` of them, or the `best` by reward. The best is chosen on the contexts' own questions, so the accuracy
            reported for it is optimistic.
        memory, retrieval: Which contexts are learned, which are kept in a store beside the student instead or too, and how it is searched.
        pictures: Of so many contexts, in domains that have pictures.
    """

    seed: int = 0
    candidates: int = 1
    use: Literal["all", "best"] = "all"
    passages: Literal["single", "together"] = "together"
    memory: MemorySettings = field(default_factory=MemorySettings)
    retrieval: RetrievalSettings = field(default_factory=RetrievalSettings)
    pictures: int = 6
    contexts: DataSettings = field(default_factory=DataSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    student: StudentChoice = field(default_factory=StudentChoice)


@dataclass
class WriteQuestions(RecipeSettings):
    """Write questions for texts that have none, and keep those that a student can use.

    Attributes:
        samples: How many texts of questions are sampled per context.
        student: Answers with the passage in view and without; a question stays if only the former agrees with what was written.
        compared: Where contexts have real questions, so many self-edits of `teacher` per context are scored by both, to see how well
            the written ones rank them; 0 does not. It takes at least two `repeats`: what is chosen by one is measured on another.
    """

    seed: int = 0
    samples: int = 1
    compared: int = 0
    contexts: DataSettings = field(default_factory=DataSettings)
    writer: TeacherSettings = field(default_factory=TeacherSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    student: StudentChoice = field(default_factory=StudentChoice)


@dataclass
class Experiment(RecipeSettings, LoopSettings):
    """Train a teacher and its control, freeze both, adapt a new student, compare everything; once per seed.

    Attributes:
        held_out_repeats: Inner loops per self-edit in the comparison, where `repeats` is for training.
        held_out_candidates: Self-edits per held-out context by each teacher, and paraphrases, each with inner loops of its own; their mean
            counts. The lasting update learns all of them.
        baselines: Any of `BASELINES`.
        retrieval: How questions are looked up, for the baselines with a store.
        new_student: Another student, which no reward comes from; without a model there is none.
        constants: Self-edits that fit any context. The best of them on the training contexts is compared as `best_constant`.
        pictures: Of so many held-out contexts, in domains that have pictures.
        lasting: How many held-out contexts a student learns for good at the end, all in one adapter: the new one, if there is one.
        lasting_epochs: Epochs of that update; null means the student's own, which suit one context.
        next_recipe: As for `train_teacher`.
    """

    seeds: list[int] = field(default_factory=lambda: [0])
    train: DataSettings = field(default_factory=DataSettings)
    held_out: DataSettings = field(default_factory=DataSettings)
    retention: DataSettings = field(default_factory=DataSettings)
    held_out_repeats: int = 1
    held_out_candidates: int = 1
    baselines: list[str] = field(default_factory=lambda: ["passage_only", "other_context"])
    retrieval: RetrievalSettings = field(default_factory=RetrievalSettings)
    constants: list[str] = field(default_factory=list)
    pictures: int = 6
    lasting: int = 4
    lasting_epochs: int | None = None
    next_recipe: str = ""
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    student: StudentChoice = field(default_factory=StudentChoice)
    new_student: StudentChoice = field(default_factory=StudentChoice)


RECIPES: dict[str, type[RecipeSettings]] = {
    "train_teacher": TrainTeacher,
    "adapt_student": AdaptStudent,
    "compare": Compare,
    "transfer": Transfer,
    "write_questions": WriteQuestions,
    "experiment": Experiment,
    "continual": Continual,
    "watch": Watch,
    "try_gate": TryGate,
    "pretrain": Pretrain,
    "bench": Bench,
    "serve": Serve,
}
