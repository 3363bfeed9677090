"""What a recipe may set, typed. Torch-free: recipe files, `--help` and tests read it too.

A recipe file's `recipe:` key says which class below reads it, and which file in `recipes/` runs it (`RECIPES`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final, Literal

from protocol.errors import InvalidInput
from recipes.domains.settings import GridSettings
from recipes.editor_settings import EditorSettings
from recipes.gate_settings import GateChoice
from recipes.graders.settings import JudgeSettings
from recipes.memory import MemorySettings
from student.settings import KeepingSettings, RetrievalSettings, StudentSettings
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


@dataclass
class NetReward:
    """What a self-edit pays for what it does elsewhere. With weights of 0 nothing is asked there.

    Attributes:
        leakage: Weight of the rise of the share of the context's questions that are answered as it taught although asked about others.
        retention: Weight of the accuracy lost on what the student knew before.
        others: How many others each context's questions are asked about.
        known: Contexts whose questions the student knows before; none of those that are measured in the end.
        known_each: How many of them are asked with each self-edit.
    """

    leakage: float = 0.0
    retention: float = 0.0
    others: int = 2
    known: DataSettings = field(default_factory=DataSettings)
    known_each: int = 2

    def check(self, place: str, prefix: str) -> None:
        """Ranges.

        Raises:
            InvalidInput: Names the key and the value.
        """
        for name in ("leakage", "retention"):
            if not 0 <= getattr(self, name) <= 100:
                raise InvalidInput(f"{place}: {prefix}{name} is {getattr(self, name)}; it must be in [0, 100]")
        for name in ("others", "known_each"):
            if not 1 <= getattr(self, name) <= 32:
                raise InvalidInput(f"{place}: {prefix}{name} is {getattr(self, name)}; it must be in 1 to 32")
        if self.retention and not self.known.source:
            raise InvalidInput(
                f"{place}: {prefix}retention is {self.retention}, but {prefix}known.source is empty; say what the student knows"
            )


@dataclass
class LoopSettings:
    """The outer loop (ReST-EM). The defaults are the published setting, but for `repeats`, published as 3.

    Attributes:
        contexts_per_round: Each round takes its own contexts, in an order drawn from the seed; at the end it starts over.
        candidates: Self-edits sampled per context.
        keep_per_context, minimum: The M step trains on the best so many per context, if worth at least `minimum`.
        net: What a self-edit pays for what it does elsewhere.
        give_up_below: With several repeats, a candidate whose chance to be kept falls below this gets no more of them; 0 repeats all.
    """

    rounds: int = 2
    contexts_per_round: int = 50
    candidates: int = 5
    keep_per_context: int = 1
    minimum: float | None = None
    give_up_below: float = 0.0
    net: NetReward = field(default_factory=NetReward)


@dataclass
class TrainTeacher(RecipeSettings, LoopSettings):
    """Train a teacher for a target student.

    Attributes:
        next_recipe: The recipe file that adapts a student with it, which the user is pointed to; empty means the domain's tiny one.
    """

    seed: int = 0
    next_recipe: str = ""
    selection: Literal["best", "random"] = "best"
    contexts: DataSettings = field(default_factory=DataSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    finetune: FinetuneSettings = field(default_factory=FinetuneSettings)
    student: StudentChoice = field(default_factory=StudentChoice)


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


@dataclass
class Continual(RecipeSettings):
    """Teach students one context after another, and see what they keep.

    Attributes:
        sequences, length: So many students learn so many contexts each, no two the same.
        strategies: By name, how students keep what they knew.
        retention: Contexts whose questions the student knows before any update; without a source it is not measured.
        others: Contexts that no student learns. Questions about their subjects show whether what was learned leaks.
    """

    seed: int = 0
    sequences: int = 16
    length: int = 8
    contexts: DataSettings = field(default_factory=DataSettings)
    retention: DataSettings = field(default_factory=DataSettings)
    others: DataSettings = field(default_factory=DataSettings)
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    student: StudentChoice = field(default_factory=StudentChoice)
    strategies: dict[str, KeepingSettings] = field(default_factory=dict)


@dataclass
class Watch(RecipeSettings):
    """Teach a student what comes into a folder, update after update, each a version in its line or refused by the gate.

    Attributes:
        inbox: The folder. A document that was learned or refused stays there, and is not learned again.
        line: The folder of the student's versions, which other recipes may go on with; empty means `line` in the run folder.
        every: From the start of an update to the next: `30s`, `10m`, `6h`, `1d`.
        window: Updates start only then, in local time: `01:00-05:00`, `22:30-04:00`; empty means always.
        once: Leave after one update.
        settle_seconds: A file that has changed within them may be half written, and waits.
        max_mb: A larger file is left.
        keeping: How the student keeps what it knew.
        gate: What an update must show before it becomes a version.
        known: Contexts whose questions the student knows from the start, for the gate; without a source they are not asked.
        others: Contexts that it never learns, whose subjects the gate asks about; without a source, names are
            taken from the base's own texts.
    """

    seed: int = 0
    inbox: str = ""
    line: str = ""
    every: str = "6h"
    window: str = ""
    once: bool = False
    settle_seconds: float = 2.0
    max_mb: int = 16
    teacher: TeacherSettings = field(default_factory=TeacherSettings)
    student: StudentSettings = field(default_factory=StudentSettings)
    keeping: KeepingSettings = field(default_factory=KeepingSettings)
    gate: GateChoice = field(default_factory=GateChoice)
    known: DataSettings = field(default_factory=DataSettings)
    others: DataSettings = field(default_factory=DataSettings)


@dataclass
class HarmSettings:
    """From where on an update counts as harmful, or as useful, on questions that the gate does not see.

    Attributes:
        lost: More than so much accuracy is lost on what the student knew from the start.
        lost_earlier: The same of what it learned before.
        leaked: The share of questions about others that are answered with what was taught rises by more.
        false: A larger share of what is asked about the subject, or about somebody whom the self-edit names, is answered wrongly as taught.
        useful: At least so much accuracy is gained on its own context.
    """

    lost: float = 0.1
    lost_earlier: float = 0.15
    leaked: float = 0.15
    false: float = 0.1
    useful: float = 0.15


@dataclass
class TryGate(RecipeSettings):
    """Try a gate on planted self-edits, good and bad, about people of the tiny world: what does it refuse, and was that harmful?

    Each is learned for itself by a student that has learned `earlier` people before, and judged with half of all questions at hand; what it
    did is measured on questions that the gate has not asked.

    Attributes:
        edits: So many, of each kind alike.
        cohort: So many learn side by side.
        split: Whose people they are about. The defaults were set after trials on both, so neither is untouched.
    """

    seed: int = 0
    edits: int = 210
    cohort: int = 14
    earlier: int = 4
    split: str = "held_out"
    harm: HarmSettings = field(default_factory=HarmSettings)
    gate: GateChoice = field(default_factory=GateChoice)
    student: StudentChoice = field(default_factory=StudentChoice)
    keeping: KeepingSettings = field(default_factory=KeepingSettings)


@dataclass
class Pretrain(RecipeSettings):
    """Pretrain a tiny model from scratch, into the folder `output`.

    Attributes:
        by_heart: Whom a model of the tiny people knows by heart: the `population`, or as many `others`.
    """

    seed: int = 0
    by_heart: Literal["population", "others"] = "population"
    output: str = ""
    curriculum: Literal["people", "grids", "directives"] = "people"
    split_names: Literal["stem", "vowel"] = "stem"
    architecture: dict[str, Any] = field(default_factory=dict)
    steps: int = 6000
    documents_per_step: int = 16
    closed_book_per_step: int = 64
    closed_book_weight: float = 0.5
    learning_rate: float = 2e-3
    evaluate_every: int = 500
    bfloat16: bool = True
    """Autocast. A processor without instructions of its own for it is faster in float32."""


@dataclass
class BenchSubject:
    """A student to time, and its work.

    Attributes:
        student: Its model, or, with an `architecture`, the model that lends its tokenizer.
        architecture: A transformers configuration with its `model_type`; the weights are random.
        contexts: Whose good self-edits it learns; without a source, random tokens.
        candidates, alone: Inner loops timed as a cohort, and one at a time.
        rows, row_tokens, questions, answer_tokens: Of random work.
        timed_steps: Time so many steps and reckon the rest; null times all.
        sustained_flops: What the machine can do in a second, for the floor under its times; null leaves the floor out.
        growth, growth_lengths: Cohort sizes and sequence lengths to draw; empty draws nothing.
    """

    student: StudentSettings = field(default_factory=StudentSettings)
    architecture: dict[str, Any] = field(default_factory=dict)
    contexts: DataSettings = field(default_factory=DataSettings)
    candidates: int = 64
    alone: int = 2
    rows: int = 15
    row_tokens: int = 60
    questions: int = 5
    answer_tokens: int = 16
    timed_steps: int | None = 6
    sustained_flops: float | None = None
    growth: list[int] = field(default_factory=list)
    growth_lengths: list[int] = field(default_factory=lambda: [16, 64, 256])


@dataclass
class Bench(RecipeSettings):
    """Time the inner loop: a cohort against one candidate at a time.

    Attributes:
        turns: How often every method is timed; the median counts.
        padded_to: Tokens to which the published code pads.
    """

    turns: int = 3
    padded_to: int = 2048
    subjects: dict[str, BenchSubject] = field(default_factory=dict)


@dataclass
class Serve(RecipeSettings):
    """Serve a student to teachers elsewhere, over HTTP or through a shared folder.

    Attributes:
        folder: Serve requests that teachers put there, in place of HTTP; several students may serve one.
        lease_seconds: Work in a folder that a student has taken and not renewed for so long is taken over by another.
        host, port: Where to listen; port 0 takes any that is free.
        token_env: The variable that holds the token which teachers must bring. Unset, a token is made and kept in the run folder.
        tls_certificate, tls_key: Files, to listen by HTTPS.
        max_body_mb: A larger submission is refused.
        max_answers: A request that asks for more of them, questions times seeds, is refused.
        max_waiting: Requests that may wait; more are told to come back later.
        gather_seconds: For so long a request that comes alone waits for others to be trained with.
    """

    student: StudentSettings = field(default_factory=StudentSettings)
    folder: str = ""
    lease_seconds: float = 60.0
    host: str = "127.0.0.1"
    port: int = 8400
    token_env: str = "TUTELAGE_TOKEN"
    tls_certificate: str | None = None
    tls_key: str | None = None
    max_body_mb: int = 16
    max_answers: int = 10_000
    max_waiting: int = 10_000
    gather_seconds: float = 0.05


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
