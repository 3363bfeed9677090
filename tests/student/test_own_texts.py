"""Texts by which it is known what a student must keep."""

from pathlib import Path

import pytest

from protocol.errors import InvalidInput
from student.base import FrozenBase
from student.own_texts import find_own_texts
from student.settings import StudentSettings

MODELS = Path(__file__).resolve().parents[2] / "recipes" / "tiny" / "models"


@pytest.fixture(scope="module")
def base() -> FrozenBase:
    return FrozenBase(StudentSettings(model=str(MODELS / "seed_oss"), rank=8))


def test_a_base_writes_what_it_was_pretrained_on_and_the_same_for_the_same_seed(base: FrozenBase) -> None:
    texts = find_own_texts(base, 40, 24, seed=1)
    assert len(texts) == 40 and all(texts)
    assert sum(text.startswith("Biography\n") for text in texts) > 10
    assert find_own_texts(base, 40, 24, seed=1) == texts
    assert find_own_texts(base, 40, 24, seed=2) != texts


def test_another_model_may_write(base: FrozenBase) -> None:
    texts = find_own_texts(base, 8, 24, seed=1, texts_from=str(MODELS / "olmo2"))
    assert len(texts) == 8
    assert texts != find_own_texts(base, 8, 24, seed=1)


def test_a_file_of_texts_is_read_up_to_as_many_as_are_wanted(base: FrozenBase, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('"It rains.\\n"\n"Half \\ud800 a letter"\n"It snows."\n')
    assert find_own_texts(base, 2, 24, seed=1, texts_from=str(path)) == ["It rains.\n", "Half ? a letter"]


@pytest.mark.parametrize("content", [b"", b'{"text": "it rains"}', b'"it rains', b'"good"\n\n"good"', b'" "', b"\xff\xfe", b"[" * 100_000])
def test_a_file_that_has_no_texts_is_refused_with_the_line(content: bytes, base: FrozenBase, tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"texts\.jsonl(, line [12] is no text as a JSON string| is empty)"):
        find_own_texts(base, 2, 24, seed=1, texts_from=str(path))
