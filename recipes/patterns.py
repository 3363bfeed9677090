"""Regular expressions that no text can make slow.

They are read by Rust's `regex`, which pydantic brings along: a search takes time in proportion to the text, whatever the pattern, and what
it cannot promise that for (look-around, back-references, patterns too large when written out) it does not read. So no text needs to be cut,
no clock decides, and a pattern finds the same on every machine.
"""

from typing import Annotated, Final

from pydantic import ConfigDict, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import SchemaError

MAX_CHARACTERS: Final = 1000


class Pattern:
    """One regular expression."""

    def __init__(self, text: str):
        """Read it.

        Raises:
            ValueError: It is empty, too long, or cannot be read; says why and what to do.
        """
        self.text = text
        if not text:
            raise ValueError("it is empty, so it is found in every line; leave it out")
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"it has {len(text)} characters, more than {MAX_CHARACTERS}; split it into several")
        try:
            self._adapter: TypeAdapter[str] = TypeAdapter(
                Annotated[str, StringConstraints(pattern=text)], config=ConfigDict(regex_engine="rust-regex")
            )
        except SchemaError as error:
            raise ValueError(f"{_describe(error)}; it must be a regular expression as Rust's regex reads them") from error

    def is_found(self, line: str) -> bool:
        """Whether it is found anywhere in a line."""
        try:
            self._adapter.validate_python(line, strict=True)
        except ValidationError:
            return False
        return True


def _describe(error: SchemaError) -> str:
    """The reason is the last line, after the pattern with a mark under the place."""
    return str(error).strip().splitlines()[-1].strip().removeprefix("SchemaError: ").removeprefix("error: ").rstrip(".").lower()
