"""The graders a recipe or a request may name."""

from protocol.domain import Grader
from recipes.graders.lexical import Lexical
from recipes.graders.words import Contained, ExactMatch

GRADERS: dict[str, Grader] = {grader.name: grader for grader in (ExactMatch(), Contained(), Lexical())}
