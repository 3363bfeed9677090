"""A student: scores self-edits by training on them and forgetting again, and makes lasting updates.

Implements `protocol.exchange.StudentService`. It sees text and messages only; it shares nothing with a teacher.
"""

import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from peft import PeftModel
from transformers import AutoModelForCausalLM

from protocol.domain import Domain, Grader
from protocol.errors import InnerLoopFailed
from protocol.files import publish_folder
from protocol.messages import (
    Change,
    CommitRequest,
    Context,
    Limits,
    Outcomes,
    Refusal,
    Reward,
    RewardRequest,
    StudentCard,
    Task,
    VersionCard,
    measurement_key,
)
from student.answers import answer
from student.base import FrozenBase, fingerprint
from student.inner_loop import make_plan, train_adapter
from student.settings import StudentSettings

LIMITS = tuple(Limits.model_fields)


class Student:
    """A frozen base model and the domains it can be taught in."""

    def __init__(self, settings: StudentSettings, domains: Mapping[str, Domain], graders: Mapping[str, Grader], folder: Path):
        """`folder` is where lasting updates are saved."""
        self._base = FrozenBase(settings)
        self._settings, self._domains, self._graders, self._folder = settings, domains, graders, folder
        self._base_outcomes: dict[tuple[str, str], Outcomes] = {}
        told = {key: value for key, value in asdict(settings).items() if key not in ("model", "revision", "merge", "answer_batch", *LIMITS)}
        self._card = StudentCard(
            fingerprint=self._base.fingerprint,
            model=settings.model,
            limits=Limits(**{name: getattr(settings, name) for name in LIMITS}),
            settings={**told, "engine": "single", "device": self._base.device.type},
            domains={name: domain.version for name, domain in domains.items()},
        )

    def describe(self) -> StudentCard:
        return self._card

    def score(self, request: RewardRequest) -> Reward | Refusal:
        """Train and answer once per seed; a request that cannot be served is refused with the reason."""
        key = measurement_key(self._card, request)
        try:
            return self._score(request, key)
        except InnerLoopFailed as error:
            return Refusal(key=key, request=request.id, reason=str(error))

    def _score(self, request: RewardRequest, key: str) -> Reward:
        domain, grader = self._resolve(request.task)
        if not request.context.questions:
            raise InnerLoopFailed("the context has no questions, so there is nothing to be rewarded for")
        asked = (request.context, *request.probes)
        base = [self._outcomes_of_base(context, request.task) for context in asked]
        plan = make_plan(request.edit.update, self._settings)
        adapted: list[list[Outcomes]] = []
        trained_tokens, seconds = 0, 0.0
        for seed in request.seeds:
            started = time.perf_counter()
            trained_tokens += train_adapter(self._base, domain.expand(request.context, request.edit, seed), plan, seed)
            own = self._outcomes([request.context], domain, grader)
            seconds += time.perf_counter() - started
            adapted.append(own + self._outcomes(request.probes, domain, grader))
        changes = [Change(base=base[i], adapted=tuple(repeat[i] for repeat in adapted)) for i in range(len(asked))]
        return Reward(
            key=key,
            request=request.id,
            student=self._card.fingerprint,
            value=sum(domain.value(base[0], repeat[0]) for repeat in adapted) / len(adapted),
            change=changes[0],
            probes=tuple(changes[1:]),
            gained=changes[0].gained,
            lost=changes[0].lost,
            seeds=request.seeds,
            seconds=seconds,
            trained_tokens=trained_tokens,
        )

    def commit(self, request: CommitRequest) -> VersionCard:
        """Train one adapter on all lessons, save it whole or not at all, and answer every context's questions.

        The version is a PEFT folder (or a merged model) named by the request, under the student's folder.
        """
        started = time.perf_counter()
        domain, grader = self._resolve(request.task)
        contexts = [lesson.context for lesson in request.lessons]
        base = [self._outcomes_of_base(context, request.task) for context in contexts]
        examples = [e for lesson in request.lessons for e in domain.expand(lesson.context, lesson.edit, request.seed)]
        updates = {lesson.edit.update for lesson in request.lessons}
        if len(updates) > 1:
            raise InnerLoopFailed(f"the lessons ask for {len(updates)} different updates; commit them one by one")
        plan = make_plan(updates.pop(), self._settings)
        trained_tokens = train_adapter(self._base, examples, plan, request.seed, lessons=len(request.lessons))
        adapted = self._outcomes(contexts, domain, grader)
        path = self._save(request.id)
        return VersionCard(
            key=measurement_key(self._card, request),
            request=request.id,
            parent=self._card.fingerprint,
            fingerprint=fingerprint(self._base.model, self._base.tokenizer),
            path=str(path),
            changes=tuple(Change(base=old, adapted=(new,)) for old, new in zip(base, adapted, strict=True)),
            seconds=time.perf_counter() - started,
            trained_tokens=trained_tokens,
        )

    def _save(self, request_id: str) -> Path:
        path = self._folder / f"version-{request_id[:8]}"
        unfinished = path.with_name(path.name + ".tmp")
        adapter = path.with_name(path.name + ".adapter")
        for leftover in (unfinished, adapter):
            shutil.rmtree(leftover, ignore_errors=True)
        self._base.model.save_pretrained(unfinished)
        if self._settings.merge:
            unfinished.rename(adapter)
            options = {"revision": self._settings.revision, "trust_remote_code": self._settings.trust_remote_code}
            whole = AutoModelForCausalLM.from_pretrained(self._settings.model, dtype=self._settings.dtype, **options)
            PeftModel.from_pretrained(whole, adapter).merge_and_unload().save_pretrained(unfinished)
            shutil.rmtree(adapter)
        self._base.tokenizer.save_pretrained(unfinished)
        publish_folder(unfinished, path)
        return path

    def _resolve(self, task: Task) -> tuple[Domain, Grader]:
        """The domain and the grader that a request names, at the versions it names."""
        for kind, name, version, known in (
            ("domain", task.domain, task.domain_version, self._domains),
            ("grader", task.grader, task.grader_version, self._graders),
        ):
            if name not in known or known[name].version != version:
                offered = ", ".join(f"{n} v{k.version}" for n, k in known.items())
                raise InnerLoopFailed(f"{kind} {name} v{version} is asked for, but this student has {offered}")
        return self._domains[task.domain], self._graders[task.grader]

    def _outcomes_of_base(self, context: Context, task: Task) -> Outcomes:
        """The base model's answers, computed once per context: they do not depend on the edit."""
        key = (context.id, task.id)
        if key not in self._base_outcomes:
            domain, grader = self._resolve(task)
            with self._base.without_adapter():
                self._base_outcomes[key] = self._outcomes([context], domain, grader)[0]
        return self._base_outcomes[key]

    def _outcomes(self, contexts: Sequence[Context], domain: Domain, grader: Grader) -> list[Outcomes]:
        """Ask the questions of all contexts in one batch."""
        prompts = [list(domain.ask(context)) for context in contexts]
        flat = [prompt for asked in prompts for prompt in asked]
        answers = answer(self._base.model, self._base.tokenizer, flat, domain.answer_tokens, self._settings.answer_batch)
        outcomes, start = [], 0
        for context, asked in zip(contexts, prompts, strict=True):
            outcomes.append(domain.read_answers(context, answers[start : start + len(asked)], grader))
            start += len(asked)
        return outcomes
