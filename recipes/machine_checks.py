"""Checks of the recipes that are about the machine and its models. Torch-free."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from protocol.errors import InvalidInput
from recipes.inputs import check_local_student, choose_task, load_data
from recipes.machine_settings import Bench, Pretrain, Serve
from student.version_history import read_line

SHORTEST_TOKEN: Final = 16


def check_pretrain(settings: Pretrain) -> str:
    if not settings.output:
        raise InvalidInput("output is empty; give the folder that the model is to be saved in")
    if "model_type" not in settings.architecture:
        raise InvalidInput("architecture.model_type is missing; give a transformers model type, such as llama or qwen2")
    lines = f" and {settings.closed_book_per_step} closed-book lines" if settings.curriculum == "people" else ""
    return f"{settings.steps} steps of {settings.documents_per_step} documents{lines}"


def check_serve(settings: Serve, fetch: bool) -> str:
    check_local_student(settings.student, "student", fetch=fetch)
    if not settings.folder and find_spec("fastapi") is None:
        raise InvalidInput("serving over HTTP takes FastAPI, which is not installed; pip install --editable '.[serve]', or set folder=PATH")
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise InvalidInput(f"tls_certificate is {settings.tls_certificate!r} and tls_key is {settings.tls_key!r}; give both, or neither")
    for key in ("tls_certificate", "tls_key"):
        path = getattr(settings, key)
        if path and not Path(path).is_file():
            raise InvalidInput(f"{key} is {path!r}, which is no file")
    if not 0 <= settings.port < 65536:
        raise InvalidInput(f"port is {settings.port}; it must be in [0, 65535]; 0 takes any that is free")
    token = os.environ.get(settings.token_env, "")
    if token and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable() or " " in token):
        raise InvalidInput(f"${settings.token_env} is no token: it takes at least {SHORTEST_TOKEN} printable characters without spaces")
    if settings.line:
        _check_line(settings)
    if settings.folder:
        return f"serve {settings.student.model} to teachers who use folder:{settings.folder}"
    feedback = f", and take feedback about {settings.line}" if settings.line else ""
    return f"serve {settings.student.model} at {settings.host}, port {settings.port}{feedback}"


def _check_line(settings: Serve) -> None:
    if settings.folder:
        raise InvalidInput(
            f"line is {settings.line!r} and folder is {settings.folder!r}, but feedback comes over HTTP alone; leave one out"
        )
    try:
        read_line(Path(settings.line))
    except InvalidInput as error:
        raise InvalidInput(f"line is {settings.line!r}: {error}") from error


def check_bench(settings: Bench, fetch: bool) -> str:
    domain, _ = choose_task(settings)
    if not settings.subjects:
        raise InvalidInput("bench needs subjects, such as subjects.mine.student.model=FOLDER")
    for name, subject in settings.subjects.items():
        key = f"subjects.{name}"
        check_local_student(subject.student, f"{key}.student", fetch=fetch)
        if subject.student.deepspeed is not None:
            raise InvalidInput(f"{key}.student.deepspeed is set, but bench times inner loops in one process; leave it out")
        if subject.contexts.source:
            _, references = load_data(domain, subject.contexts, f"{key}.contexts", questions=True, fetch=fetch)
            if not references:
                raise InvalidInput(f"{key}.contexts has no reference self-edits; use source: tiny with split train, validation or held_out")
        if subject.timed_steps is not None and subject.timed_steps < 3:
            raise InvalidInput(f"{key}.timed_steps is {subject.timed_steps}; it must be at least 3, or null for all")
    return f"{len(settings.subjects)} models, 4 methods each, {settings.turns} turns"
