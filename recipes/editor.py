"""An editor between teacher and student: each self-edit is accepted, mended or refused before any student sees it.

What is refused is treated as if it were no self-edit: it is paid its domain's floor and never kept. What is mended is what the student
learns, and what is rewarded; the teacher is finetuned on the mended text where its domain can write that as a completion, otherwise on
the candidate as written. Every decision is journaled, and none is made twice.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from protocol.errors import InvalidInput
from protocol.journal import CandidateRecord, DecisionRecord, Journal
from protocol.messages import Context
from recipes import terminal
from recipes.base_settings import RecipeSettings
from recipes.domains import RecipeDomain
from recipes.editor_rules import Draft, apply, apply_rules, check_length
from recipes.editor_settings import PATTERNS
from recipes.graders.judge import Judge, check_judge, in_folder
from recipes.graders.wording import Claim, make_claim
from recipes.patterns import Pattern

BATCH: Final = 64
"""So many self-edits are decided on, and journaled, at once."""
WITHOUT_EDITS: Final = ("pretrain", "bench", "serve")
"""Recipes in which no teacher writes."""


def check_editor(recipe: RecipeSettings, domain: RecipeDomain) -> None:
    """See that the recipe's self-edits can be edited as it says, without network and torch.

    Raises:
        InvalidInput: Names the keys and the remedy.
    """
    keys = ", ".join(f"editor.{rule}" for rule in recipe.editor.rules)
    if not keys:
        return
    if recipe.recipe in WITHOUT_EDITS:
        raise InvalidInput(f"{keys}: set, but no teacher writes self-edits in recipe {recipe.recipe}; leave it out")
    if not domain.has_lines:
        raise InvalidInput(f"{keys}: set, but self-edits of domain {recipe.domain} are directives and have no lines; leave it out")
    if recipe.editor.contradictions:
        try:
            check_judge(recipe.judge)
        except InvalidInput as error:
            raise InvalidInput(f"editor.contradictions is {recipe.editor.contradictions!r}, which asks the judge: {error}") from error


def open_editor(recipe: RecipeSettings, domain: RecipeDomain, folder: Path) -> "Editor | None":
    """The recipe's editor, whose judge keeps verdicts in the run's folder; None if every rule is off."""
    return Editor(recipe, domain, folder) if recipe.editor.rules else None


class Editor:
    """Patterns that were read, and a judge that is opened when first asked, in this process alone."""

    def __init__(self, recipe: RecipeSettings, domain: RecipeDomain, folder: Path):
        check_editor(recipe, domain)
        self._settings, self._domain = recipe.editor, domain
        self._patterns = {name: [Pattern(text) for text in getattr(recipe.editor, name) or []] for name in PATTERNS}
        self._judge_settings = in_folder(recipe.judge, folder)
        self._judge: Judge | None = None

    def edit(self, contexts: Sequence[Context], records: Sequence[CandidateRecord], stage: str, journal: Journal) -> list[CandidateRecord]:
        """Decide on every candidate that is a self-edit, unless the journal says what was decided; tell the user how that stands.

        Returns:
            The same candidates in order, with the decisions.
        """
        by_id = {context.id: context for context in contexts}
        edits = [record for record in records if record.malformed is None]
        missing = [record for record in edits if (stage, record.context, record.index) not in journal.decisions]
        with terminal.stage(f"{stage} · editing self-edits", len(edits), len(edits) - len(missing)) as advance:
            for start in range(0, len(missing), BATCH):
                batch = missing[start : start + BATCH]
                journal.append(*self._decide(batch, [by_id[record.context] for record in batch]))
                advance(len(batch), "")
        decided = {id(record): journal.decisions[stage, record.context, record.index] for record in edits}
        if decided:
            terminal.console.print(f"{stage}: {describe(list(decided.values()))}")
        return [record.model_copy(update={"decision": decided.get(id(record))}) for record in records]

    def _decide(self, records: Sequence[CandidateRecord], contexts: Sequence[Context]) -> list[DecisionRecord]:
        drafts = []
        for record, context in zip(records, contexts, strict=True):
            edit = self._domain.parse(record.text, context)
            draft = Draft({number: example.prompt + example.completion for number, example in enumerate(edit.examples)})
            apply_rules(draft, context.passage, self._settings, self._patterns)
            drafts.append(draft)
        if self._settings.contradictions:
            self._judge_lines(drafts, contexts, self._settings.contradictions)
        for draft in drafts:
            if not draft.refused_by:
                check_length(draft, self._settings)
        return [self._record(*each) for each in zip(records, contexts, drafts, strict=True)]

    def _judge_lines(self, drafts: Sequence[Draft], contexts: Sequence[Context], action: str) -> None:
        """Ask about all lines in one go. One without a verdict stays; the judge says how many there are."""
        claims = [
            {} if draft.refused_by else {number: make_claim(context.passage, line) for number, line in draft.lines.items()}
            for draft, context in zip(drafts, contexts, strict=True)
        ]
        self._judge = self._judge or Judge(self._judge_settings)
        verdicts = self._judge.ask(list(dict.fromkeys(claim for own in claims for claim in own.values())))
        contradicts: set[Claim] = {claim for claim, verdict in verdicts.items() if verdict.correct}
        for draft, own in zip(drafts, claims, strict=True):
            found = [number for number, claim in own.items() if claim in contradicts]
            apply(draft, "contradictions", action, found, "contradicts the passage")

    def _record(self, record: CandidateRecord, context: Context, draft: Draft) -> DecisionRecord:
        is_mended = bool(draft.dropped) and not draft.refused_by
        kept = tuple(draft.lines) if is_mended else None
        return DecisionRecord(
            stage=record.stage,
            context=record.context,
            index=record.index,
            decision="refused" if draft.refused_by else "mended" if is_mended else "accepted",
            reason=draft.describe() if is_mended else draft.reason,
            rules=tuple(dict.fromkeys(filter(None, (*draft.dropped, draft.refused_by)))),
            dropped=sum(draft.dropped.values()),
            kept=kept,
            text=self._domain.shorten(record.text, context, kept) if kept else None,
        )


def describe(decisions: Sequence[DecisionRecord]) -> str:
    """What the user is told of a stage's decisions."""
    counts = Counter(decision.decision for decision in decisions)
    mended = [decision for decision in decisions if decision.decision == "mended"]
    lines = f" ({sum(decision.dropped for decision in mended)} lines dropped)" if mended else ""
    told = f"the editor accepts {counts['accepted']} self-edits, mends {counts['mended']}{lines} and refuses {counts['refused']}"
    first = next((decision.reason for decision in decisions if decision.decision == "refused"), None)
    return told + (f", such as for {first}" if first else "")


def report_decisions(decisions: Iterable[DecisionRecord]) -> dict[str, Any]:
    """The editor's part of a report: how many self-edits were accepted, mended and refused, by stage and by rule, and how many lines
    were dropped of those mended.
    """
    stages: dict[str, Counter[str]] = {}
    rules: dict[str, Counter[str]] = {}
    dropped = 0
    for decision in decisions:
        stages.setdefault(decision.stage, Counter(accepted=0, mended=0, refused=0))[decision.decision] += 1
        for rule in decision.rules:
            rules.setdefault(rule, Counter(mended=0, refused=0))[decision.decision] += 1
        dropped += decision.dropped if decision.decision == "mended" else 0
    whole: Counter[str] = Counter(accepted=0, mended=0, refused=0)
    for counts in stages.values():
        whole.update(counts)
    return {
        **whole,
        "dropped_lines": dropped,
        "by_rule": {rule: dict(counts) for rule, counts in rules.items()},
        "by_stage": {stage: dict(counts) for stage, counts in stages.items()},
    }
