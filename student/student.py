"""A student: scores self-edits by training on them and forgetting again, and makes lasting updates.

Implements `protocol.exchange.StudentService`. It sees text and messages only; it shares nothing with a teacher.
"""

import json
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Final

import torch

from protocol.domain import Domain, Grader
from protocol.errors import InnerLoopFailed
from protocol.exchange import Take
from protocol.identity import content_id
from protocol.messages import (
    Answers,
    AskRequest,
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
from protocol.processes import is_first_process
from protocol.prompts import tokenize
from student.answers import answer
from student.base import FrozenBase, fingerprint
from student.engines import choose_engine
from student.grading import by_context, grade, value
from student.inner_loop import Adapted, check_prompts, make_plan, prepare
from student.jobs import Job, make_cohorts
from student.lasting import save_version
from student.settings import StudentSettings
from student.sft import settle_memory
from student.single import Single

LIMITS = tuple(Limits.model_fields)
NOT_IN_CARD = ("model", "revision", "merge", "save_every", "answer_batch", "inner_loop", "cohort", "cohort_tokens", *LIMITS)
"""Settings that decide no reward, or stand elsewhere in the card."""

_MOST_REMEMBERED: Final = 10_000
"""Contexts of which the base's answers are remembered: a service lives long."""


class Student:
    """A frozen base model and the domains it can be taught in."""

    def __init__(
        self,
        settings: StudentSettings,
        domains: Mapping[str, Domain],
        graders: Mapping[str, Grader],
        folder: Path,
        deepspeed: str | None = None,
    ):
        """`folder` is where lasting updates are saved; `deepspeed` is a configuration file for them, if `settings` has none."""
        self._base = FrozenBase(settings)
        self._deepspeed = deepspeed
        self._engine, why = choose_engine(self._base)
        self._settings, self._domains, self._graders, self._folder = settings, domains, graders, folder
        self._base_answers: dict[tuple[str, str], list[str]] = {}
        self._base_outcomes: dict[tuple[str, str], Outcomes] = {}
        self._cohorts: list[Sequence[Job]] = []
        self._known: frozenset[str] = frozenset()
        told = {key: value for key, value in asdict(settings).items() if key not in NOT_IN_CARD}
        if settings.deepspeed is not None:
            told["deepspeed"] = content_id(json.loads(Path(settings.deepspeed).read_text(encoding="utf-8")))
        if settings.chat:
            told["chat"] = content_id(self._base.tokenizer.get_chat_template())
        self._card = StudentCard(
            fingerprint=self._base.fingerprint,
            model=settings.model,
            limits=Limits(**{name: getattr(settings, name) for name in LIMITS}),
            settings={**told, "engine": self._engine.name, "device": self._base.device.type},
            inner_loop=why,
            domains={name: domain.version for name, domain in domains.items()},
            graders={name: grader.version for name, grader in graders.items()},
        )

    def describe(self) -> StudentCard:
        return self._card

    def score(
        self, requests: Sequence[RewardRequest], known: Collection[str] = (), take: Take | None = None
    ) -> Iterator[Sequence[Reward | Refusal]]:
        """Train and answer once per seed; a request that cannot be served is refused with the reason.

        Args:
            known: Ids of requests whose answers the caller has.
            take: Asked before each cohort; one that is not taken is left out.
        """
        refused, cohorts = self.arrange(requests, known)
        if refused:
            yield refused
        for number, ids in cohorts.items():
            if take is None or take(ids):
                yield self.score_cohort(number)

    def arrange(self, requests: Sequence[RewardRequest], known: Collection[str] = ()) -> tuple[list[Refusal], dict[int, list[str]]]:
        """Put requests into cohorts in their order: the same requests make the same cohorts, whoever trains them.

        A request that is `known` takes its place without an answer.

        Returns:
            Refusals of requests that cannot be served; and by number the cohorts to score, each with its requests' ids: not those whose
            every request is known.
        """
        jobs, refused = [], []
        for request in requests:
            try:
                jobs.append(self._prepare(request))
            except InnerLoopFailed as error:
                refused += [self._refuse(request, error)] if request.id not in known else []
        sizes = self._engine.cohort_sizes([loop for job in jobs for loop in job.loops])
        self._cohorts, self._known = make_cohorts(jobs, sizes), frozenset(known)
        cohorts = {number: [job.id for job in cohort] for number, cohort in enumerate(self._cohorts)}
        return refused, {number: ids for number, ids in cohorts.items() if not self._known.issuperset(ids)}

    def score_cohort(self, number: int) -> list[Reward | Refusal]:
        """Train and ask one of the cohorts last arranged."""
        cohort = self._cohorts[number]
        base = self._ask_base([(job.request.task, context) for job in cohort for context in job.contexts])
        results = iter(self._engine.run([loop for job in cohort for loop in job.loops]))
        scored = [(job, [next(results) for _ in job.loops]) for job in cohort]
        wanted = [(job, own) for job, own in scored if job.id not in self._known]
        asked = [
            (job.request.task, context, answers)
            for job, own in wanted
            for result in own
            if isinstance(result, Adapted)
            for context, answers in by_context(job.domain, job.contexts, result.answers)
        ]
        outcomes = iter(grade(self._resolve, asked))
        return [self._reward(job, own, outcomes, base) for job, own in wanted]

    def ask(self, requests: Sequence[AskRequest]) -> Iterator[Sequence[Answers | Refusal]]:
        """The untouched base's answers, context by context, so that they do not depend on which others are asked."""
        for request in requests:
            yield [self.ask_one(request)]

    def ask_one(self, request: AskRequest) -> Answers | Refusal:
        key = measurement_key(self._card, request)
        try:
            domain, _ = self._resolve(request.task)
            prompts = domain.ask(request.context, request.in_view)
            check_prompts(self._base, prompts, domain.answer_tokens)
        except InnerLoopFailed as error:
            return Refusal(key=key, request=request.id, reason=str(error))
        if request.in_view:
            with self._base.without_adapter():
                answers = self._answer(self._base, prompts, domain)
            (outcomes,) = grade(self._resolve, [(request.task, request.context, answers)])
        else:
            (outcomes,) = self._ask_base([(request.task, request.context)]).values()
        read_tokens = sum(map(len, tokenize(self._base.tokenizer, prompts, self._settings.chat).input_ids)) if prompts else 0
        return Answers(key=key, request=request.id, student=self._card.fingerprint, outcomes=outcomes, read_tokens=read_tokens)

    def _prepare(self, request: RewardRequest) -> Job:
        domain, grader = self._resolve(request.task)
        if not request.context.questions:
            raise InnerLoopFailed("the context has no questions, so there is nothing to be rewarded for")
        plan = make_plan(request.edit.update, self._settings)
        prompts = tuple(prompt for context in (request.context, *request.probes) for prompt in domain.ask(context))
        check_prompts(self._base, prompts, domain.answer_tokens)
        loops = []
        for seed in request.seeds:
            loop = prepare(self._base, domain.expand(request.context, request.edit, seed), plan, seed)
            loops.append(replace(loop, prompts=prompts, answer_tokens=domain.answer_tokens))
        return Job(request, request.id, domain, grader, tuple(loops))

    def _reward(
        self,
        job: Job,
        results: Sequence[Adapted | InnerLoopFailed],
        outcomes: Iterator[Outcomes],
        base_outcomes: Mapping[tuple[str, str], Outcomes],
    ) -> Reward | Refusal:
        """Of one job: what came of its inner loops. `outcomes` yields those of every loop that was asked, context by context."""
        trained = [result for result in results if isinstance(result, Adapted)]
        adapted = [[next(outcomes) for _ in job.contexts] for _ in trained]
        if failed := next((result for result in results if isinstance(result, InnerLoopFailed)), None):
            return self._refuse(job.request, failed)
        base = [base_outcomes[context.id, job.request.task.id] for context in job.contexts]
        changes = [Change(base=base[i], adapted=tuple(repeat[i] for repeat in adapted)) for i in range(len(base))]
        paid = value(job.domain, changes[0])
        if paid is None:
            reason = f"{job.grader.name} gave no verdict on any answer about {job.request.context.title!r}"
            return Refusal(key=measurement_key(self._card, job.request), request=job.id, reason=reason, ungraded=True)
        return Reward(
            key=measurement_key(self._card, job.request),
            request=job.id,
            context=job.request.context.id,
            edit=job.request.edit.id,
            student=self._card.fingerprint,
            value=paid,
            change=changes[0],
            probes=tuple(changes[1:]),
            gained=changes[0].gained,
            lost=changes[0].lost,
            seeds=job.request.seeds,
            seconds=sum(result.seconds for result in trained),
            trained_tokens=sum(result.trained_tokens for result in trained),
            truncated_examples=sum(loop.truncated for loop in job.loops),
        )

    def _refuse(self, request: RewardRequest, error: InnerLoopFailed) -> Refusal:
        return Refusal(key=measurement_key(self._card, request), request=request.id, reason=str(error))

    def commit(self, request: CommitRequest) -> VersionCard:
        """Train one adapter on all lessons, save it whole or not at all, and answer every context's questions.

        All launched processes train it together. The version is a PEFT folder (or a merged model) named by student and request, under the
        student's folder; beside it are checkpoints, from which an update that was killed goes on.
        """
        with self._base_to_train() as base:
            return self._commit(request, base)

    def _commit(self, request: CommitRequest, base: FrozenBase) -> VersionCard:
        started = time.perf_counter()
        domain, _ = self._resolve(request.task)
        contexts = {lesson.context.id: lesson.context for lesson in request.lessons}
        check_prompts(base, [prompt for context in contexts.values() for prompt in domain.ask(context)], domain.answer_tokens)
        before = self._ask_base([(request.task, context) for context in contexts.values()])
        examples = [e for lesson in request.lessons for e in domain.expand(lesson.context, lesson.edit, request.seed)]
        updates = {lesson.edit.update for lesson in request.lessons}
        if len(updates) > 1:
            raise InnerLoopFailed(f"the lessons ask for {len(updates)} different updates; commit them one by one (passages=single)")
        plan = make_plan(updates.pop(), self._settings)
        path = self._folder / f"version-{measurement_key(self._card, request)[:8]}"
        loop = prepare(base, examples, plan, request.seed, lessons=len(request.lessons))
        trained_tokens = Single(base).learn(loop, path.with_name(path.name + ".training"))
        after = dict(zip(contexts, self._ask(base, list(contexts.values()), request.task), strict=True))
        save_version(base, self._settings, path)
        return VersionCard(
            key=measurement_key(self._card, request),
            request=request.id,
            parent=self._card.fingerprint,
            fingerprint=fingerprint(base.model, base.tokenizer),
            path=str(path),
            changes=tuple(
                Change(base=before[own.context.id, request.task.id], adapted=(after[own.context.id],)) for own in request.lessons
            ),
            seconds=time.perf_counter() - started,
            trained_tokens=trained_tokens,
        )

    @contextmanager
    def _base_to_train(self) -> Iterator[FrozenBase]:
        """The resident model; under DeepSpeed a copy, since what it trains, it keeps."""
        if self._deepspeed is None or self._settings.deepspeed is not None:
            yield self._base
            return
        linear = torch.nn.functional.linear
        try:
            yield FrozenBase(replace(self._settings, deepspeed=self._deepspeed))
        finally:
            torch.nn.functional.linear = linear  # which ZeRO stage 3 replaces
            settle_memory()

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

    def _ask_base(self, asked: Sequence[tuple[Task, Context]]) -> dict[tuple[str, str], Outcomes]:
        """The base model's answers, once per context: they do not depend on the edit, nor on which other contexts there are.

        Returns:
            By the ids of context and task.
        """
        if len(self._base_answers) > _MOST_REMEMBERED:
            self._base_answers.clear()
            self._base_outcomes.clear()
        wanted = {(context.id, task.id): (task, context) for task, context in asked}
        with self._base.without_adapter():
            for key, (task, context) in wanted.items():
                if key not in self._base_answers:
                    domain, _ = self._resolve(task)
                    self._base_answers[key] = self._answer(self._base, domain.ask(context), domain)
        new = [key for key in wanted if key not in self._base_outcomes]
        graded = dict(zip(new, grade(self._resolve, [(*wanted[key], self._base_answers[key]) for key in new]), strict=True))
        if is_first_process():
            self._base_outcomes |= graded
        return {key: graded[key] if key in graded else self._base_outcomes[key] for key in wanted}

    def _ask(self, base: FrozenBase, contexts: Sequence[Context], task: Task) -> list[Outcomes]:
        """Ask the questions of all contexts in one go."""
        domain, _ = self._resolve(task)
        answers = self._answer(base, [prompt for context in contexts for prompt in domain.ask(context)], domain)
        return grade(self._resolve, [(task, context, own) for context, own in by_context(domain, contexts, answers)])

    def _answer(self, base: FrozenBase, prompts: Sequence[str], domain: Domain) -> list[str]:
        with base.ready():
            return answer(base.model, base.tokenizer, prompts, domain.answer_tokens, self._settings.answer_batch, self._settings.chat)
