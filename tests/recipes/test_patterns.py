import time

import pytest

from recipes.patterns import Pattern

EXPLODING = ["(a+)+$", "^(a|aa)+$", "(a*)*b", "^(([a-z])+.)+[A-Z]([a-z])+$", "(?:a?){200}a{200}c", "[ab]*a[ab]{900}c"]
"""Each takes a backtracking engine longer than anybody lives."""


@pytest.mark.parametrize(
    ("pattern", "line", "found"),
    [
        ("^(She|He) ", "She plays the harp.", True),
        ("^(She|He) ", "Ada says: She plays.", False),
        ("(?i)harp", "The HARP", True),
        (r"\p{Arabic}", "Ada \u202e صحيح", True),
        (r"[\x00-\x08]", "Ada\x00", True),
        ("^$", "Ada", False),
    ],
)
def test_a_pattern_is_found_anywhere_in_a_line(pattern: str, line: str, found: bool) -> None:
    assert Pattern(pattern).is_found(line) is found


@pytest.mark.parametrize("pattern", EXPLODING)
def test_no_line_makes_a_pattern_slow(pattern: str) -> None:
    read, began = Pattern(pattern), time.perf_counter()
    read.is_found("a" * 200_000 + "!")
    assert time.perf_counter() - began < 2


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("", "it is empty, so it is found in every line; leave it out"),
        ("(", "unclosed group; it must be a regular expression as Rust's regex reads them"),
        ("(?!Ada)", "look-around, including look-ahead and look-behind, is not supported; it must be"),
        (r"(a)\1", "backreferences are not supported; it must be"),
        ("(a{1000}){1000}", "compiled regex exceeds size limit of 10485760 bytes; it must be"),
        ("a" * 1001, "it has 1001 characters, more than 1000; split it into several"),
    ],
)
def test_a_pattern_that_cannot_be_kept_fast_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(ValueError) as error:
        Pattern(pattern)
    assert str(error.value).startswith(message)
