"""The domains a recipe or a request may name."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rich.console import RenderableType

from protocol.domain import Domain
from protocol.errors import InvalidInput
from protocol.messages import Context, SelfEdit
from recipes.domains.few_shot import FewShot
from recipes.domains.knowledge import Knowledge
from recipes.domains.settings import GridSettings
from recipes.memory import Use


class Picture(Protocol):
    """Of a context and its answers."""

    def save(self, path: Path) -> None:
        """Write it as PNG."""
        ...

    def __rich__(self) -> RenderableType:
        """For the terminal."""
        ...


class RecipeDomain(Domain, Protocol):
    """What recipes ask of a domain beside that: its files, and how its answers are told."""

    @property
    def adapt_recipe(self) -> str:
        """The recipe file that adapts a tiny student, which a user is pointed to."""
        ...

    @property
    def graders(self) -> Sequence[str] | None:
        """The graders that make sense of its answers; None for any."""
        ...

    def load(self, source: str, split: str, limit: int | None) -> tuple[list[Context], dict[str, str]]:
        """Contexts of a source, and by context id self-edits known to be good where it has them.

        Args:
            source: A file, a folder, `hub:NAME`, or `tiny` for the domain's tiny world.
            split: Of a data set or a tiny world.
            limit: How many a tiny world makes; files are read whole.

        Raises:
            InvalidInput: Names the place, the value and the remedy.
        """
        ...

    def load_uses(self, source: str) -> Mapping[str, Use]:
        """What a source says of how its contexts are used, by context id.

        Raises:
            InvalidInput: Names the place, the value and the remedy.
        """
        ...

    def find_written(self, path: Path, contexts: Sequence[Context], count: int, key: str) -> Mapping[str, Sequence[tuple[str, str]]]:
        """Self-edits from a file by context id, at least `count` each: texts, each with the style of its prompt.

        Args:
            key: The recipe's key, for messages.

        Raises:
            InvalidInput: The file cannot be read, or has too few.
        """
        ...

    @property
    def has_lines(self) -> bool:
        """Whether its self-edits have examples, whose texts an editor can drop one by one."""
        ...

    def shorten(self, text: str, context: Context, kept: Sequence[int]) -> str | None:
        """The completion with only so many of its examples, but for white space at their ends; None where no completion says just that.

        Args:
            kept: Which examples, counted from 0, in order.
        """
        ...

    def write(self, edit: SelfEdit, context: Context, style: str) -> str | None:
        """The completion of a style's prompt that says what a self-edit does; None where no completion says just that."""
        ...

    def picture(self, context: Context, answers: Mapping[str, Sequence[str]]) -> "Picture | None":
        """A picture of a context with answers to its questions, by condition; None where words are enough."""
        ...

    def measure(self, answers: Sequence[str], golds: Sequence[Sequence[str]]) -> Mapping[str, float]:
        """What else there is to say of answers beside their grades, by name."""
        ...


DOMAINS: dict[str, RecipeDomain] = {"knowledge": Knowledge(), "few_shot": FewShot(GridSettings())}
"""As published."""


def open_domain(name: str, grids: GridSettings) -> RecipeDomain:
    """The domain that a recipe names, with its settings.

    Raises:
        InvalidInput: There is none of that name.
    """
    if name not in DOMAINS:
        raise InvalidInput(f"domain is {name!r}; it is one of {', '.join(DOMAINS)}")
    return FewShot(grids) if name == "few_shot" else DOMAINS[name]
