"""What the recipes may set in which a student keeps learning. Torch-free."""

from dataclasses import dataclass, field

from recipes.base_settings import DataSettings, RecipeSettings, StudentChoice
from recipes.gate_settings import GateChoice
from student.settings import KeepingSettings, StudentSettings
from teacher.settings import TeacherSettings


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
        split: Whose people they are about. The gate's defaults were set after trials on both, with seed 0.
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
