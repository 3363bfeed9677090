"""What every recipe may set, typed: data, how processes work together, students here or elsewhere. Torch-free."""

from dataclasses import dataclass, field, fields
from typing import Final

from recipes.domains.settings import GridSettings
from recipes.editor_settings import EditorSettings
from recipes.graders.settings import JudgeSettings
from student.settings import StudentSettings


@dataclass
class DataSettings:
    """Where contexts come from.

    Attributes:
        source: A file or folder, `hub:NAME`, or `tiny` for the tiny world.
        split: Of a data set or of the tiny world.
        shuffle: A seed, to take contexts in an order drawn from it; null leaves them as they are. SQuAD goes article by article.
        limit: Use the first so many; null means all.
        reference: A self-edit known to be good for every context.
    """

    source: str = ""
    split: str = ""
    shuffle: int | None = None
    limit: int | None = None
    reference: str = ""

    @property
    def is_on_hub(self) -> bool:
        return self.source.startswith("hub:")


@dataclass
class DistributedSettings:
    """How several processes train together.

    Attributes:
        deepspeed: `zero2`, `zero3`, `zero3_offload`, or a DeepSpeed configuration file, for the finetuning of teachers and for
            lasting updates of students; null trains data-parallel without DeepSpeed.
        join_seconds: How long processes wait for each other at the start.
    """

    deepspeed: str | None = None
    join_seconds: float = 120.0


@dataclass
class RecipeSettings:
    """What every recipe has.

    Attributes:
        recipe: Which recipe reads the file.
        name: The run folder is `runs/name`.
        domain, grader: How contexts are asked and graded; an empty grader means the domain's default.
        judge: The language model that grades where `grader` is `judge`, and is asked where `editor.contradictions` is set.
        editor: What is looked for in self-edits before a student learns them.
        grids: How grids are shown and counted where `domain` is `few_shot`.
        repeats: Inner loops per self-edit, each with its own seed.
        threads: CPU threads; null leaves it to torch. One is fastest for tiny models, and does not suffer from company.
    """

    recipe: str = ""
    name: str = ""
    runs: str = "runs"
    domain: str = "knowledge"
    grader: str = ""
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    editor: EditorSettings = field(default_factory=EditorSettings)
    grids: GridSettings = field(default_factory=GridSettings)
    repeats: int = 1
    threads: int | None = None
    distributed: DistributedSettings = field(default_factory=DistributedSettings)

    @property
    def asks_judge(self) -> bool:
        """Whether a language model is asked for verdicts."""
        return self.grader == "judge" or self.editor.contradictions is not None


LOCAL: Final = "local"


FOLDER: Final = "folder:"


@dataclass
class StudentChoice(StudentSettings):
    """A student in this run's own processes, or one that others serve.

    Attributes:
        exchange: `local`; an address such as `http://127.0.0.1:8400`; or `folder:PATH`, a folder shared with those who serve it
            (`tutelage serve`). With another than `local` the model and its settings are the service's: without `model` whatever they are,
            with it those given here must be the same.
        token_env: The variable that holds the service's token, never the token itself.
    """

    exchange: str = LOCAL
    token_env: str = "TUTELAGE_TOKEN"

    @property
    def is_local(self) -> bool:
        return self.exchange == LOCAL

    @property
    def label(self) -> str:
        """How messages to a user name it."""
        return self.model if self.is_local else self.exchange

    @property
    def here(self) -> StudentSettings:
        """Its settings as a student in this process."""
        return StudentSettings(**{item.name: getattr(self, item.name) for item in fields(StudentSettings)})
