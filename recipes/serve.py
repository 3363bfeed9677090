"""Serve a student to teachers elsewhere: requests come in, rewards go out, each computed once and on disk before anybody hears of it."""

import os
import secrets
import socket
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Final

from protocol.messages import VersionCard
from protocol.wire import Result
from recipes.base_settings import FOLDER
from recipes.inputs import choose_task, student_models
from recipes.machine_checks import SHORTEST_TOKEN
from recipes.machine_settings import Serve
from recipes.run_folder import RunFolder
from recipes.shared_student import SharedStudent
from recipes.stages import place_grader
from recipes.stopping import stopping
from recipes.team import Team
from recipes.terminal import console, note
from student.deaths import Deaths
from student.feedback_desk import FeedbackDesk
from student.folder_desk import FolderDesk
from student.queue import Counts, Queue
from student.serving import Desk, serve

DEATHS: Final = "answering.json"
FEEDBACK: Final = "feedback.jsonl"
_TELL_SECONDS: Final = 5.0
"""At most so often the terminal is told of rewards and answers."""


def run(settings: Serve, team: Team) -> Path:
    """Serve until told to stop, by SIGTERM or Ctrl-C; returns the run folder."""
    domain, _ = choose_task(settings)
    with RunFolder(settings, {}, student_models({"student": settings.student}), team) as folder:
        grader, deepspeed = place_grader(team, settings, folder), settings.distributed.deepspeed
        with SharedStudent(team, settings.student, domain, grader, folder.path / "student", deepspeed) as student:
            console.print(f"{settings.student.model} · inner loops by {student.describe().inner_loop}")
            (serve_folder if settings.folder else serve_http)(settings, student, folder, team.size == 1)
        return folder.path


def serve_http(settings: Serve, student: SharedStudent, folder: RunFolder, outlives: bool) -> None:
    """Answer over HTTP, from the run's journal."""
    from student.service import create_app, listening

    token, told = find_token(settings, folder.path)
    if settings.host not in ("127.0.0.1", "::1", "localhost") and settings.tls_certificate is None:
        note(f"host is {settings.host}, and without tls_certificate and tls_key the token can be read on its way; give both")
    queue = Queue(student.describe(), folder.journal, settings.max_waiting, settings.max_answers, settings.gather_seconds)
    feedback = FeedbackDesk(folder.path / FEEDBACK, Path(settings.line)) if settings.line else None
    app = create_app(queue, token, settings.max_body_mb * 2**20, feedback)
    with listening(app, settings.host, settings.port, settings.tls_certificate, settings.tls_key) as address, stopping(queue.stop):
        if stand := len(folder.journal.results):
            console.print(f"going on from its journal, in which {stand} rewards stand")
        console.print(f"{told}\nserving at {address}: student.exchange={address} · Ctrl-C stops")
        if feedback:
            console.print(f"feedback about {settings.line} is kept in {folder.path / FEEDBACK}")
        serve(student, Telling(queue), Deaths(folder.path / DEATHS), outlives)
        console.print(f"stopping; {queue.size} requests have no answer yet, and are submitted again by whoever waits for them")
    console.print(f"answered: {describe_counts(queue.counts)}")


def serve_folder(settings: Serve, student: SharedStudent, folder: RunFolder, outlives: bool) -> None:
    """Answer in a folder that teachers and other students share."""
    name, path = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}", Path(settings.folder)
    limits = settings.max_body_mb * 2**20, settings.max_answers
    with FolderDesk(path, student.describe(), name, settings.lease_seconds, *limits) as desk, stopping(desk.stop):
        console.print(f"serving in {path}: student.exchange={FOLDER}{path} · Ctrl-C stops")
        telling = Telling(desk)
        serve(student, telling, Deaths(folder.path / DEATHS), outlives)
        console.print("stopping; what was not finished is left to others")
    console.print(f"answered: {describe_counts(telling.all)}")


class Telling:
    """A desk that tells the terminal what was answered: lasting updates at once, everything else now and then."""

    def __init__(self, desk: Desk):
        self._desk, self.all, self._told = desk, Counts(), Counts()
        self._since = time.monotonic()
        self.take, self.claim = desk.take, desk.claim

    def deliver(self, results: Sequence[Result]) -> None:
        self._desk.deliver(results)
        self.all.add(results)
        self._told.add(results)
        for result in results:
            if isinstance(result, VersionCard):
                console.print(f"lasting update: {result.path}")

    def finish(self) -> None:
        self._desk.finish()
        seconds = time.monotonic() - self._since
        if seconds > _TELL_SECONDS and self._told != Counts():
            console.print(f"{time.strftime('%H:%M:%S')} answered: {describe_counts(self._told)}")
            self._since, self._told = time.monotonic(), Counts()


def describe_counts(counts: Counts) -> str:
    """What a student has done, in words."""
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in asdict(counts).items() if count) or "nothing"


def find_token(settings: Serve, folder: Path) -> tuple[str, str]:
    """The token that teachers must bring, and what the user is told of it."""
    if token := os.environ.get(settings.token_env):
        return token, f"the token is that of ${settings.token_env}"
    path = folder / "token"
    if not path.exists() or len(path.read_bytes().strip()) < SHORTEST_TOKEN:
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32))
    return path.read_text(encoding="ascii").strip(), f"the token, for teachers: export {settings.token_env}=$(cat {path})"
