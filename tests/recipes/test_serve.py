from collections.abc import Sequence
from pathlib import Path

import pytest
from scripted import TASK, ScriptedStudent

from protocol.messages import CommitRequest, Context, Lesson, RewardRequest, SelfEdit
from protocol.wire import Result, Submission
from recipes.cli import main
from recipes.serve import Telling
from student.deaths import Deaths
from student.serving import serve
from student.versions import Line


class Desk:
    def __init__(self, submissions: Sequence[Submission]):
        self._left = list(submissions)

    def take(self) -> Submission | None:
        return self._left.pop(0) if self._left else None

    def claim(self, ids: Sequence[str]) -> bool:
        return True

    def deliver(self, results: Sequence[Result]) -> None:
        pass

    def finish(self) -> None:
        pass


def test_the_terminal_is_told_of_rewards_now_and_then_and_of_lasting_updates_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rewards = [RewardRequest(task=TASK, context=Context(title=title), edit=SelfEdit(), seeds=(1,)) for title in "abc"]
    commit = CommitRequest(task=TASK, lessons=(Lesson(context=Context(title="a"), edit=SelfEdit()),), seed=1)
    monkeypatch.setattr("recipes.serve._TELL_SECONDS", 0.0)
    telling = Telling(Desk([Submission(rewards=tuple(rewards)), Submission(commits=(commit,))]))
    serve(ScriptedStudent(lambda request: 0.5), telling, Deaths(tmp_path / "deaths"))
    first, update, second = capsys.readouterr().out.splitlines()
    assert first.endswith(" answered: 3 rewards, 3 trained tokens")
    assert update == "lasting update: nowhere"
    assert second.endswith(" answered: 1 versions, 1 trained tokens")
    monkeypatch.setattr("recipes.serve._TELL_SECONDS", 1000.0)
    serve(ScriptedStudent(lambda request: 0.5), Telling(Desk([Submission(rewards=tuple(rewards))])), Deaths(tmp_path / "deaths"))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["line=nowhere"], "line is 'nowhere': nowhere is no line of versions (it has no versions.jsonl); give the folder in which"),
        (["line=LINE", "folder=shared"], "line is 'LINE' and folder is 'shared', but feedback comes over HTTP alone; leave one out"),
    ],
)
def test_a_line_that_cannot_be_used_is_refused_before_anything_is_made(
    tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Line(tmp_path / "line").close()
    line = str(tmp_path / "line")
    given = [word.replace("LINE", line) for word in words]
    assert main(["serve", "recipes/serve.yaml", f"runs={tmp_path}/runs", *given]) == 2
    assert message.replace("LINE", line) in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_dry_run_says_about_which_line_feedback_is_taken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Line(tmp_path / "line").close()
    assert main(["serve", "recipes/serve.yaml", f"runs={tmp_path}/runs", f"line={tmp_path}/line", "--dry-run"]) == 0
    assert f"port 8400, and take feedback about {tmp_path}/line" in capsys.readouterr().out.replace("\n", " ")
