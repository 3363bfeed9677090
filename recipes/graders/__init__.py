"""The graders a recipe or a request may name."""

from protocol.domain import Grader
from protocol.errors import InvalidInput
from recipes.graders.judge import Judge, check_judge, judge_id
from recipes.graders.lexical import Lexical
from recipes.graders.settings import JudgeSettings
from recipes.graders.words import Contained, ExactMatch, Verbatim

GRADERS: dict[str, Grader] = {grader.name: grader for grader in (ExactMatch(), Contained(), Verbatim(), Lexical())}
"""Those that need nothing but the answers. A `judge` is opened with its settings."""


def open_grader(name: str, judge: JudgeSettings) -> Grader:
    """The grader that a recipe names.

    Raises:
        InvalidInput: There is none of that name, or the judge's settings cannot be right.
    """
    check_grader(name, judge)
    return Judge(judge) if name == "judge" else GRADERS[name]


def check_grader(name: str, judge: JudgeSettings) -> None:
    """See that a grader can be opened, without network and torch.

    Raises:
        InvalidInput: Names the key and the remedy.
    """
    if name == "judge":
        check_judge(judge)
    elif name not in GRADERS:
        raise InvalidInput(f"grader is {name!r}; it is one of {', '.join([*GRADERS, 'judge'])}")


def grader_id(name: str, judge: JudgeSettings) -> tuple[str, int]:
    """Name and version of a grader that `check_grader` let pass, without opening it."""
    return judge_id(judge) if name == "judge" else (GRADERS[name].name, GRADERS[name].version)
