"""The M step of ReST-EM: a teacher is finetuned on what was kept, and that is journaled.

Source: SEAL, arXiv 2506.10943, section 3.1.
"""

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from protocol.exchange import Exchange
from protocol.files import hash_files, is_whole
from protocol.identity import derive_seed
from protocol.journal import CandidateRecord, CheckpointRecord, SelectionRecord
from protocol.messages import Context
from recipes import terminal
from recipes.inputs import choose_style
from recipes.run_folder import RunFolder
from recipes.scoring import Scoring
from recipes.statistics import summarize
from recipes.team import Team
from recipes.terminal import console
from recipes.zero_configs import find_config
from teacher.finetune import Finetuned, finetune
from teacher.serving import name_adapter
from teacher.settings import FinetuneSettings, TeacherSettings


@dataclass(frozen=True)
class Outer:
    """What one run of the outer loop is made with.

    Attributes:
        students: Whose rewards train the teacher, by name; their mean, if there are several.
        deepspeed: The configuration for finetuning, if any.
        selection: `best`, or `random` for the control.
        at_most: What a control may keep, by round; None sets no bound.
    """

    scoring: Scoring
    students: Mapping[str, Exchange]
    teacher: TeacherSettings
    finetune: FinetuneSettings
    deepspeed: str | None
    selection: str = "best"
    at_most: Sequence[int] | None = None


@dataclass
class Trained:
    """A trained teacher: how to load it, what identifies it, and what was selected in each round."""

    teacher: TeacherSettings
    fingerprint: str | None = None
    selections: list[SelectionRecord] = field(default_factory=list)

    def report(self) -> dict[str, Any]:
        """The teacher's part of a report: mean reward over contexts and its reliability by round, and inner loops saved."""
        served = {"served_as": name_adapter(Path(self.teacher.adapter))} if self.teacher.is_at_endpoint and self.teacher.adapter else {}
        return {
            "teacher": {"path": self.teacher.adapter or self.teacher.model, "fingerprint": self.fingerprint, **served},
            "mean_reward_by_round": [summarize(own.rewards, own.groups) for own in self.selections if own.rewards],
            "reliability_by_round": [selection.reliability for selection in self.selections],
            "inner_loops_saved": sum(selection.saved for selection in self.selections),
        }


def is_over(trained: Trained, folder: RunFolder, this_round: str) -> bool:
    """Whether a round's finetuning is done; then the teacher goes on from there."""
    output = folder.path / this_round
    if this_round not in folder.journal.checkpoints or not is_whole(output):
        return False
    trained.selections.append(folder.journal.selections[this_round])
    trained.teacher, trained.fingerprint = load_from(trained.teacher, output), folder.journal.checkpoints[this_round].fingerprint
    return True


def improve(
    outer: Outer,
    team: Team,
    trained: Trained,
    contexts: Sequence[Context],
    candidates: Sequence[CandidateRecord],
    folder: RunFolder,
    this_round: str,
    times: Sequence[float],
) -> None:
    """The M step: finetune the teacher on what was kept, if anything was.

    Args:
        times: When the round's phases began: sampling, if it had that, and scoring.
    """
    journal, scoring = folder.journal, outer.scoring
    times = [*times, time.perf_counter()]
    selection = journal.selections[this_round]
    trained.selections.append(selection)
    kept = [c for c in candidates if c.candidate in selection.kept]
    if not kept:
        console.print(f"{this_round}: {tell_why_none(selection, candidates, scoring.loop.minimum)}, so the teacher stays as it is")
        return
    output = folder.path / this_round
    results = finetune_on(outer, team, trained.teacher, kept, contexts, this_round, output)
    trained.teacher, trained.fingerprint = load_from(trained.teacher, output), hash_files(output.glob("*.safetensors"))
    journal.append(CheckpointRecord(stage=this_round, path=this_round, fingerprint=trained.fingerprint))
    folder.log_metrics(
        stage=this_round,
        candidates=len(candidates),
        malformed=sum(c.malformed is not None for c in candidates),
        **({"refused_by_editor": sum(c.refused is not None for c in candidates)} if scoring.editor else {}),
        kept=len(kept),
        mean_reward=statistics.fmean(selection.rewards) if selection.rewards else None,
        reliability=selection.reliability,
        inner_loops_saved=selection.saved,
        finetune_loss=statistics.fmean(losses) if (losses := [r.loss for r in results if r.loss is not None]) else None,
        zero_stage=results[0].zero_stage,
        trained_elements=results[0].trained_elements,
        optimizer_elements=[result.optimizer_elements for result in results],
        **seconds_of(times, ("sampling_seconds", "scoring_seconds", "finetuning_seconds")[-len(times) :]),
    )


def tell_why_none(selection: SelectionRecord, candidates: Sequence[CandidateRecord], minimum: float | None) -> str:
    """Why nothing was kept of a round."""
    if not candidates:
        return "there is no candidate"
    if all(candidate.malformed is not None for candidate in candidates):
        return "no candidate is a self-edit"
    if all(candidate.unusable is not None for candidate in candidates):
        return "the editor refused every self-edit"
    if selection.rule == "random":
        return "the trained teacher kept nothing, and the control keeps no more"
    return f"no self-edit is worth minimum={minimum}" if minimum is not None else "no self-edit has a reward"


def seconds_of(times: Sequence[float], phases: Sequence[str]) -> dict[str, float]:
    """How long each phase took, from the times at which they began; the last ends now."""
    ends = [*times[1:], time.perf_counter()]
    return {phase: round(end - start, 3) for phase, start, end in zip(phases, times, ends, strict=True)}


def finetune_on(
    outer: Outer,
    team: Team,
    teacher: TeacherSettings,
    kept: Sequence[CandidateRecord],
    contexts: Sequence[Context],
    stage: str,
    output: Path,
) -> list[Finetuned]:
    """The M step, by all processes together; returns what each saw of it."""
    by_id = {context.id: context for context in contexts}
    domain = outer.scoring.domain
    style = choose_style(teacher.style, domain)
    pairs = [(domain.prompt(by_id[c.context], c.style if c.style in domain.styles else style), c.taught) for c in kept]
    seed = derive_seed(outer.scoring.seed, "finetune", stage)
    steps = outer.finetune.epochs * math.ceil(len(pairs) / outer.finetune.step_size)
    with terminal.stage(f"{stage} · finetuning the teacher on {len(pairs)} self-edits", steps) as advance:
        return team.together(
            finetune, teacher, pairs, outer.finetune, seed, output, find_config(outer.deepspeed), on_step=lambda: advance(1, "")
        )


def load_from(teacher: TeacherSettings, checkpoint: Path) -> TeacherSettings:
    """The same teacher with its weights from a checkpoint: a PEFT folder, or a whole model."""
    if (checkpoint / "adapter_config.json").exists():
        return replace(teacher, adapter=str(checkpoint))
    return replace(teacher, model=str(checkpoint), adapter=None, revision=None)
