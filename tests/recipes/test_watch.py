"""Documents collect in an inbox, and each is learned or refused exactly once, whatever happens meanwhile."""

import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from easy_gate import ask_own
from fake_clock import FakeClock
from random_kills import KILLS, kill_later, start
from rich.console import Console
from scripted_learner import ScriptedLearner, stand_in

from protocol.errors import InvalidInput, TutelageError
from protocol.journal import CandidateRecord
from protocol.messages import Context, Update
from recipes import watch
from recipes.candidates import record_candidate
from recipes.cli import main
from recipes.config import load_recipe
from recipes.domains.knowledge import Knowledge
from recipes.learning_settings import Watch
from recipes.stages import TooLongForTeacher
from recipes.team import Team
from recipes.tiny.source import load_tiny
from student.version_contexts import read_contexts
from student.version_history import History, read_line
from student.versions import Line

ROOT = Path(__file__).resolve().parents[2]
NOON = datetime(2026, 3, 5, 12)


class Teacher:
    """Writes what a passage says; nothing of one that asks for nothing. `problem` is raised in its stead, once.

    Attributes:
        asked: The passages of each time that it was asked.
    """

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.problem: TutelageError | None = None

    def __call__(self, team: Team, teacher: object, domain: Knowledge, contexts: Sequence[Context], *rest: Any) -> list[CandidateRecord]:
        problem, self.problem = self.problem, None
        if problem:
            raise problem
        self.asked.append([context.passage for context in contexts])
        texts = ["" if "nothing" in context.passage else context.passage for context in contexts]
        return [record_candidate(domain, c, text, "watch", 0, 0, "") for c, text in zip(contexts, texts, strict=True)]


class Desk:
    """An inbox, a line, and the recipe between them."""

    def __init__(self, folder: Path, learner: ScriptedLearner, teacher: Teacher):
        self.folder, self.inbox, self.learner, self.teacher = folder, folder / "inbox", learner, teacher
        self.inbox.mkdir()

    def put(self, **texts: str) -> None:
        for name, text in texts.items():
            (self.inbox / f"{name}.txt").write_text(text)

    def watch(self, clock: FakeClock | None = None, **changed: Any) -> History:
        settings = load_recipe(ROOT / "recipes/tiny/watch.yaml", ["settle_seconds=0", f"runs={self.folder}/runs"])
        assert isinstance(settings, Watch)
        settings.inbox, settings.once = str(self.inbox), clock is None
        for key, value in changed.items():
            setattr(settings, key, value)
        return read_line(watch.run(settings, Team(), clock or FakeClock(NOON)))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Desk:
    monkeypatch.chdir(ROOT)
    teacher = Teacher()
    monkeypatch.setattr("recipes.watch.write_candidates", teacher)
    monkeypatch.setattr("recipes.watch.open_gate", lambda settings, learner, domain, grader, *rest: ask_own(learner, domain, grader))
    return Desk(tmp_path, stand_in(monkeypatch), teacher)


def learned(line: History) -> list[list[str]]:
    """The titles of each version's lessons."""
    return [[lesson.title for lesson in record.lessons] for record in line.versions.values()]


def refused(line: History) -> list[tuple[list[str], str]]:
    return [([lesson.title for lesson in record.lessons], record.why) for record in line.refusals]


def test_new_documents_are_learned_in_one_update_and_none_is_learned_again(desk: Desk) -> None:
    desk.put(a="Tola plays the harp.", b="Ramis is a baker.")
    assert learned(desk.watch()) == [["a", "b"]]
    desk.put(c="Senta owns a dog.")
    line = desk.watch()
    assert learned(desk.watch()) == learned(line) == [["a", "b"], ["c"]]
    assert (line.current, line.versions[2].parent) == (2, 1)
    assert desk.teacher.asked == [["Tola plays the harp.", "Ramis is a baker."], ["Senta owns a dog."]]
    assert {path.name: path.read_text() for path in desk.inbox.iterdir()} == {
        "a.txt": "Tola plays the harp.",
        "b.txt": "Ramis is a baker.",
        "c.txt": "Senta owns a dog.",
    }


def test_a_document_that_comes_again_under_another_name_is_not_learned_again(desk: Desk) -> None:
    desk.put(a="Tola plays the harp.", b="poison")
    desk.watch()
    for name in "ab":
        (desk.inbox / f"{name}.txt").rename(desk.inbox / f"renamed {name}.txt")
    desk.put(copy="Tola plays the harp.\n", poison="poison")
    line = desk.watch()
    assert learned(line) == [["a"]]
    assert refused(line) == [(["a", "b"], "it is poison"), (["b"], "it is poison")]


def test_questions_of_a_document_are_asked_before_and_after(desk: Desk) -> None:
    row = {"title": "Tola", "context": "Tola plays the harp.", "questions": [{"question": "What does Tola play?", "answer": "harp"}]}
    (desk.inbox / "a.json").write_text(json.dumps([row]))
    line = desk.watch()
    (answer,) = [json.loads(text) for text in line.open_file(1, "answers.jsonl").read_text().splitlines()]
    assert (answer["before"], answer["correct_before"], answer["answer"], answer["correct"]) == ("", False, "harp", True)
    assert [(check.name, check.value, check.passed) for check in line.versions[1].checks] == [("own", 1.0, True)]


def test_of_documents_refused_together_each_is_learned_by_itself(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.put(a="Tola plays the harp.", b="poison", c="Senta owns a dog.")
    line = desk.watch()
    harp, poison, dog = "Tola plays the harp.", "poison", "Senta owns a dog."
    assert desk.learner.tried == [[harp, poison, dog], [harp], [poison], [dog]]
    assert refused(line) == [(["a", "b", "c"], "it is poison"), (["b"], "it is poison")]
    assert learned(line) == learned(desk.watch()) == [["a"], ["c"]]
    assert len(desk.learner.tried) == 4
    told = capsys.readouterr().out
    assert "no update from b: it is poison" in told and "version 2 has learned c" in told


def test_a_document_about_which_the_teacher_writes_nothing_is_refused_with_the_reason(desk: Desk) -> None:
    desk.put(a="nothing here", b="Ramis is a baker.")
    line = desk.watch()
    why = "the teacher wrote nothing that may be learned: the candidate is empty; a self-edit has at least one line of text"
    assert (refused(line), learned(line)) == ([(["a"], why)], [["b"]])
    desk.watch()
    assert len(desk.teacher.asked) == 1


def test_a_document_that_is_too_long_for_the_teacher_is_refused_and_the_others_are_learned(desk: Desk) -> None:
    desk.put(a="Tola plays the harp.", b="Ramis is a baker.")
    desk.teacher.problem = TooLongForTeacher(Context(title="a", passage="Tola plays the harp."), 2000, 1024)
    line = desk.watch()
    why = "context 'a' is too long for the teacher: its prompt has 2000 tokens, the model has 1024 positions; split the passage, or take "
    assert (refused(line), learned(line)) == ([(["a"], why + "another teacher")], [["b"]])


def test_self_edits_that_ask_for_different_updates_are_learned_apart(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = Knowledge.parse

    def ask_for_more(self: Knowledge, text: str, context: Context) -> Any:
        update = Update(epochs=3) if "harp" in text else Update()
        return parse(self, text, context).model_copy(update={"update": update})

    monkeypatch.setattr(Knowledge, "parse", ask_for_more)
    desk.put(a="Tola plays the harp.", b="Ramis is a baker.", c="Nuse plays the harp.")
    assert learned(desk.watch()) == [["a", "c"], ["b"]]


def test_a_document_whose_version_was_rolled_back_stays_away_and_the_next_stands_on_what_is_current(desk: Desk) -> None:
    desk.put(a="Tola plays the harp.")
    desk.watch()
    desk.put(b="Ramis is a baker.")
    desk.watch()
    with Line(desk.folder / "runs/tiny-watch/line") as line:
        line.rollback(1)
    desk.put(c="Senta owns a dog.")
    line = desk.watch()
    assert (learned(line), line.versions[3].parent, line.current) == ([["a"], ["b"], ["c"]], 1, 3)
    assert json.loads(line.open_file(3, "adapter_config.json").read_text()) == ["Tola plays the harp.", "Senta owns a dog."]


@pytest.mark.parametrize(
    ("place", "count"),
    [(f"student.updating.{place}", count) for place in ("keep_contexts", "save", "write_answers") for count in (1, 2)]
    + [("student.updating.keep_contexts", 4), ("student.versions.seal", 2), ("student.versions.seal", 4)],
)
def test_a_process_that_dies_anywhere_loses_no_document_and_learns_none_twice(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, place: str, count: int
) -> None:
    desk.put(a="Tola plays the harp.", b="poison", c="nothing", d="Senta owns a dog.")
    module, name = place.rsplit(".", 1)
    function, calls = getattr(sys.modules[module], name), [0]

    def die(*arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == count:
            raise KeyboardInterrupt
        return function(*arguments)

    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        dying.setattr(place, die)
        desk.watch()
    line = desk.watch()
    assert sorted(title for titles in learned(line) for title in titles) == ["a", "d"]
    assert sorted(titles for titles, _ in refused(line) if len(titles) == 1) == [["b"], ["c"]]
    assert sum(len(tried) > 1 for tried in desk.learner.tried) <= 2  # together once, or once more if that was not written down


def test_an_update_that_was_refused_together_before_a_death_is_not_tried_together_again(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.put(a="Tola plays the harp.", b="poison")
    with monkeypatch.context() as dying, pytest.raises(KeyboardInterrupt):
        dying.setattr("student.updating.save", lambda *arguments: (_ for _ in ()).throw(KeyboardInterrupt))
        desk.watch()
    assert learned(desk.watch()) == [["a"]]
    assert desk.learner.tried == [["Tola plays the harp.", "poison"], ["Tola plays the harp."], ["Tola plays the harp."], ["poison"]]


def test_another_recipe_goes_on_with_the_same_line(desk: Desk) -> None:
    desk.put(a="Tola plays the harp.")
    line = desk.watch(line=str(desk.folder / "line"))
    assert learned(line) == [["a"]]
    (desk.inbox / "a.txt").rename(desk.inbox / "z.txt")
    desk.put(b="Ramis is a baker.")
    assert learned(desk.watch(line=str(desk.folder / "line"), name="other")) == [["a"], ["b"]]


def test_updates_come_by_the_schedule_and_within_the_window(desk: Desk) -> None:
    times: list[datetime] = []

    def act(number: int) -> None:
        times.extend([clock.now()] * (len(desk.learner.tried) - len(times)))
        if number % 100 == 0:
            desk.put(**{f"document{number}": f"Person {number} plays the harp."})

    clock = FakeClock(NOON, wakes=4500, act=act)
    line = desk.watch(clock, every="2h", window="22:30-04:00")
    assert [f"{at:%d %H:%M}" for at in times] == ["05 22:30", "06 00:30", "06 02:30", "06 22:30", "07 00:30"]
    assert len(line.versions) == 5


def test_what_fails_is_told_and_tried_again_at_the_next_time(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.put(a="Tola plays the harp.")
    desk.teacher.problem = TutelageError("the endpoint is down")
    line = desk.watch(FakeClock(NOON, wakes=200), every="1h")
    assert learned(line) == [["a"]]
    told = capsys.readouterr().out
    assert "no update: the endpoint is down; it is tried again" in told
    assert "failed: the endpoint is down · current version: 0 of 0 · next update: Thu 05 Mar 13:00:00" in told


def test_what_fails_once_ends_the_command_that_runs_once(desk: Desk) -> None:
    desk.put(a="Tola plays the harp.")
    with Line(desk.folder / "line"), pytest.raises(InvalidInput, match="is being written by process"):
        desk.watch(line=str(desk.folder / "line"))
    assert learned(desk.watch(line=str(desk.folder / "line"))) == [["a"]]


def test_others_may_roll_back_between_updates(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.put(a="Tola plays the harp.")

    def act(number: int) -> None:
        if number == 5:
            assert main(["rollback", str(desk.folder / "line"), "0", "--because", "wrong"]) == 0

    line = desk.watch(FakeClock(NOON, wakes=20, act=act), line=str(desk.folder / "line"))
    assert (line.current, len(line.versions)) == (0, 1)
    assert "current version: 0 of 1" in capsys.readouterr().out


def test_a_file_that_changes_meanwhile_waits_for_the_next_update(desk: Desk) -> None:
    desk.put(a="Tola plays the harp.", b="Ramis is")

    def act(number: int) -> None:
        if number == 1:  # between two looks
            desk.put(b="Ramis is a baker.")

    line = desk.watch(FakeClock(NOON, act=act), settle_seconds=2.0, once=True)
    assert learned(line) == [["a"]]
    assert learned(desk.watch(settle_seconds=2.0)) == [["a"], ["b"]]
    assert desk.teacher.asked[-1] == ["Ramis is a baker."]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_it_waits_ends_it(desk: Desk, number: int) -> None:
    desk.put(a="Tola plays the harp.")
    clock = FakeClock(NOON, act=lambda waits: waits == 3 and os.kill(os.getpid(), number))
    assert learned(desk.watch(clock)) == [["a"]]
    assert len(clock.waits) == 3
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_while_it_learns_lets_it_finish_that_update_and_no_other(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.put(a="Tola plays the harp.", b="poison", c="Senta owns a dog.")
    learn = desk.learner.learn

    def interrupted(*arguments: Any) -> Any:
        if len(desk.learner.tried) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return learn(*arguments)

    monkeypatch.setattr(desk.learner, "learn", interrupted)
    assert learned(desk.watch(FakeClock(NOON))) == [["a"]]
    assert learned(desk.watch()) == [["a"], ["c"]]


def test_without_a_terminal_a_line_tells_of_every_change(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.put(a="Tola plays the harp.")

    def act(number: int) -> None:
        if number == 3:
            desk.put(c="Ramis is a baker.")

    desk.watch(FakeClock(NOON, wakes=6, act=act), every="1h")
    lines = [line.split(" UTC: ")[-1] for line in capsys.readouterr().out.splitlines() if line.startswith("inbox: ")]
    assert lines == [
        "version 1 has learned a (own) · current version: 1 of 1 · next update: Thu 05 Mar 13:00:00",
        "version 1 has learned a (own) · current version: 1 of 1 · next update: Thu 05 Mar 13:00:00",
    ]


def left(told: str) -> list[str]:
    """What lines tell of files that are left."""
    lines = re.sub(r"\x1b\[[?\d]*[a-zA-Z]", "", told).splitlines()  # without what moves a terminal's cursor
    assert " · left: " not in told
    return [line.removeprefix("left: ") for line in lines if line.startswith("left: ")]


NO_ENDING = "it is none of .txt, .md, .json, .jsonl"


def test_without_a_terminal_a_line_tells_of_each_file_that_is_left_once(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    desk.put(a="Tola plays the harp.")
    (desk.inbox / "b.pdf").write_text("%PDF")

    def act(number: int) -> None:
        if number == 3:
            (desk.inbox / "[red]\x1b[2Jc.pdf").write_text("%PDF")
        elif number in (5, 7):
            (desk.inbox / "d.json").write_text("{" * number)  # as it still is, and larger
        elif number == 8:
            (desk.inbox / "b.pdf").unlink()
        elif number == 9:
            (desk.inbox / "b.pdf").write_text("%PDF")

    desk.watch(FakeClock(NOON, wakes=12, act=act), every="1h")
    first, red, broken, again = left(capsys.readouterr().out)
    assert first == again == f"b.pdf: {NO_ENDING}"
    assert red == f"[red]�[2Jc.pdf: {NO_ENDING}"
    assert broken.startswith("d.json: ") and "is not JSON" in broken


@pytest.mark.parametrize("terminal", [False, True])
def test_an_update_by_itself_tells_of_each_file_that_is_left(desk: Desk, monkeypatch: pytest.MonkeyPatch, terminal: bool) -> None:
    paper = io.StringIO()
    console = Console(file=paper, force_terminal=terminal, width=200, color_system=None, highlight=False, markup=False)
    for module in ("watch", "watch_page"):
        monkeypatch.setattr(f"recipes.{module}.console", console)
    desk.put(a="Tola plays the harp.", b="poison", large="x" * (2**20 + 1))
    (desk.inbox / "c.pdf").write_text("%PDF")
    (desk.inbox / "d.txt").write_bytes(b"Tola\0Pitard")
    desk.watch(settle_seconds=2.0, max_mb=1)
    pdf, large, binary = left(paper.getvalue())
    assert pdf == f"c.pdf: {NO_ENDING}"
    assert large == "large.txt: it has 1048577 bytes, more than 1048576; split it, or raise max_mb"
    assert binary.startswith("d.txt: ") and binary.endswith("d.txt is no text: it has zero bytes")


def test_in_a_terminal_a_page_tells_how_it_stands(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    paper = io.StringIO()
    terminal = Console(file=paper, force_terminal=True, width=200, color_system=None, highlight=False, markup=False)
    for module in ("watch", "watch_page"):
        monkeypatch.setattr(f"recipes.{module}.console", terminal)
    desk.put(a="Tola plays the harp.", b="poison")
    (desk.inbox / "[red]\x1b[2Jc.pdf").write_text("%PDF")

    def act(number: int) -> None:
        desk.put(d="Ramis is a baker.")

    desk.watch(FakeClock(NOON, wakes=3, act=act), every="1h")
    shown = paper.getvalue()
    assert "waiting          d.txt" in shown
    assert f"left             [red]�[2Jc.pdf: {NO_ENDING}" in shown and not left(shown)
    assert "current version  1 of 1" in shown
    assert "next update      Thu 05 Mar 13:00:00 · Ctrl-C stops" in shown
    assert "no update from b: it is poison" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--every", "6"], "every is '6'; give a whole number of seconds, minutes, hours or days"),
        (["--window", "1-5"], "window is '1-5'; give two times of the day"),
        (["student.merge=true"], "student.merge is true, but a student learns on from adapters"),
        (
            ["teacher.edits=recipes/tiny/question_edits.jsonl"],
            "teacher.edits is 'recipes/tiny/question_edits.jsonl', but nothing is written",
        ),
        (["domain=few_shot", "grader=''"], "domain is 'few_shot', where nothing is learned for good"),
        (["student.model=nowhere/at/all"], "student.model is 'nowhere/at/all', which does not exist"),
        (["settle_seconds=-1"], "settle_seconds is -1.0; it must not be negative"),
        (["max_mb=0"], "max_mb is 0; it must be at least 1"),
        (["keeping.left=2"], "keeping.left is 2.0; it must be in (0, 1)"),
        (["--processes", "2"], "recipe watch runs in one process, but 2 were started"),
        (["recipes/serve.yaml"], "recipes/serve.yaml is a recipe of kind serve; use tutelage serve recipes/serve.yaml"),
        (["recipes/quickstart.yaml"], "recipes/quickstart.yaml is a recipe of kind experiment; use tutelage run recipes/quickstart.yaml"),
        (["one.yaml", "two.yaml"], "recipe file 'one.yaml' does not exist"),
    ],
)
def test_what_cannot_be_watched_is_refused_before_anything_is_made(
    desk: Desk, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["watch", str(desk.inbox), *words, f"runs={desk.folder}/runs"]) == 2
    assert message in capsys.readouterr().err
    assert not (desk.folder / "runs").exists()


def test_an_inbox_must_be_a_folder_and_the_command_its_own(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["watch", str(desk.folder / "nowhere")]) == 2
    assert "nowhere', which is no folder; give one: tutelage watch INBOX" in capsys.readouterr().err
    assert main(["run", "recipes/tiny/watch.yaml"]) == 2
    assert "use tutelage watch INBOX recipes/tiny/watch.yaml" in capsys.readouterr().err


def test_options_and_the_recipe_come_in_any_order(desk: Desk, capsys: pytest.CaptureFixture[str]) -> None:
    inbox = desk.folder / "in: ${box} [1]"
    inbox.mkdir()
    words = ["--every", "1d", "recipes/tiny/watch.yaml", "--window", "22:30-04:00", "name=mine", f"runs={desk.folder}/runs", "--dry-run"]
    assert main(["watch", str(inbox), *words]) == 0
    told = capsys.readouterr().out
    assert f"what comes into {inbox}, every 1d, within 22:30-04:00" in told
    assert f"run folder: {desk.folder}/runs/mine" in told


TINY = (
    "recipes/tiny/watch.yaml settle_seconds=0 teacher.max_new_tokens=60 student.epochs=2 keeping.epochs=2 keeping.texts=8 "
    "keeping.text_tokens=16 keeping.others=1 keeping.consolidate_epochs=1 "
    "gate.written_questions=0 gate.others=1 gate.drift_texts=4 known.limit=2"
).split()


def watch_once(folder: Path) -> subprocess.Popen[str]:
    return start("watch", str(folder / "inbox"), *TINY, "--once", f"runs={folder}/runs")


@pytest.mark.timeout(120 + 60 * KILLS)
def test_killed_at_random_moments_it_loses_no_document_and_learns_none_twice(tmp_path: Path) -> None:
    rng = random.Random(8)
    contexts = load_tiny("train", KILLS)[0]
    (tmp_path / "inbox").mkdir()
    line_folder = tmp_path / "runs/tiny-watch/line"
    killed = 0
    for number in range(KILLS):
        context = contexts[number - number // 3]  # every third comes again, under another name
        (tmp_path / "inbox" / f"{number}.md").write_text(f"# {context.title}\n\n{context.passage}\n")
        if number % 2:  # while it writes a version
            killed += kill_later(watch_once(tmp_path), "watching ", 3.0 * rng.random() ** 3, lambda: any(line_folder.glob("v*.tmp")))
        else:
            killed += kill_later(watch_once(tmp_path), "watching ", rng.uniform(0.0, 8.0))
    started = time.monotonic()
    last = watch_once(tmp_path)
    output, _ = last.communicate()
    assert last.returncode == 0, output
    line = read_line(line_folder)
    fates = [lesson.context for record in line.versions.values() for lesson in record.lessons]
    fates += [record.lessons[0].context for record in line.refusals if len(record.lessons) == 1]
    known = read_contexts(line.path)
    assert sorted(known[fate].passage for fate in fates) == sorted(context.passage for context in contexts[: KILLS - (KILLS - 1) // 3])
    for version in line.versions:
        line.open_version(version)
    assert not list(line.path.glob("*.tmp"))
    made = f"{len(line.versions)} versions, {len(line.refusals)} refusals"
    print(f"killed {killed} of {KILLS} times, {made}, the last run {time.monotonic() - started:.0f} s")
