import struct
from io import StringIO
from pathlib import Path

from rich.console import Console

from protocol.messages import Context, Demonstration, Question
from recipes.domains import DOMAINS
from recipes.domains.few_shot import FewShot
from recipes.domains.grid_pictures import TaskPicture
from recipes.domains.settings import GridSettings
from recipes.pictures import save_pictures
from recipes.terminal import console

CONTEXT = Context(
    title="harp $\\x$/1",
    demonstrations=(Demonstration(input="12\n34", output="5"),) * 2,
    questions=(Question(text="67", answers=("89",)), Question(text="0")),
)
ANSWERS = {"no_edit": ["no grid: [[8 9", "1"], "trained": ["89", "2"]}


def shown(picture: TaskPicture) -> list[str]:
    written = StringIO()
    Console(file=written, width=200).print(picture)
    return [" ".join(line.split()) for line in written.getvalue().splitlines() if line.strip()]


def test_the_terminal_shows_every_grid_in_digits_and_what_was_right() -> None:
    assert shown(TaskPicture(CONTEXT, ANSWERS)) == [
        "harp $\\x$/1",
        "demonstration demonstration",
        "1 2 1 2",
        "3 4 3 4",
        "becomes becomes",
        "5 5",
        "test no edit (wrong) trained (right) solution",
        "6 7 no grid 8 9 8 9",
        "test no edit trained",
        "0 1 2",
    ]


def test_of_two_attempts_a_right_one_is_shown_or_the_first() -> None:
    right, wrong = TaskPicture(CONTEXT, {"voted": ["88\n\n89", "1"]}), TaskPicture(CONTEXT, {"voted": ["88\n\n99", "1"]})
    assert shown(right)[6:8] == ["test voted (right) solution", "6 7 8 9 8 9"]
    assert shown(wrong)[6:8] == ["test voted (wrong) solution", "6 7 8 8 8 9"]


def test_at_most_five_demonstrations_are_shown() -> None:
    many = CONTEXT.model_copy(update={"demonstrations": CONTEXT.demonstrations * 4})
    assert shown(TaskPicture(many, ANSWERS))[1] == " ".join(["demonstration"] * 5)


def test_pictures_are_drawn_and_the_first_is_shown(tmp_path: Path) -> None:
    with console.capture() as told:
        save_pictures(FewShot(GridSettings()), [CONTEXT], [ANSWERS], tmp_path / "pictures")
    (path,) = (tmp_path / "pictures").iterdir()
    assert path.name == "000-harp-x-1.png"
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", content[16:24])
    assert (width, height) == (680, 760)  # four panels across and four down
    assert 2_000 < len(content) < 100_000
    assert "no edit (wrong)" in told.get()


def test_where_words_are_enough_there_are_no_pictures(tmp_path: Path) -> None:
    with console.capture() as told:
        save_pictures(DOMAINS["knowledge"], [Context(passage="Ada plays the harp.")], [{"no_edit": ["lute"]}], tmp_path / "pictures")
    assert not (tmp_path / "pictures").exists()
    assert told.get() == ""
