"""Measure the inner loop, end to end (train and answer): the cohort against one candidate at a time, on one machine in one run.

A method is timed on few and on many steps. The difference is what a step costs; what is left at no steps is set-up, such as
building a trainer. Methods take turns, and the median over turns counts, so that a busy moment hits none of them alone.
"""

import copy
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import psutil
import torch
from rich import box
from rich.table import Table
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from protocol.files import write_json
from protocol.messages import Update
from recipes import terminal
from recipes.inputs import choose_task, load_data, student_models
from recipes.machine_settings import Bench, BenchSubject
from recipes.run_folder import RunFolder
from recipes.team import Team
from recipes.terminal import console
from student.answers import answer
from student.base import FrozenBase
from student.cohort import Cohort
from student.inner_loop import IGNORED, InnerLoop, Row, make_plan, prepare
from student.sft import release_memory
from student.single import Single


@dataclass(frozen=True)
class Method:
    """A way to run inner loops, and the two sizes of work it is timed at, without prompts; `many` is timed with prompts too."""

    name: str
    run: Callable[[Sequence[InnerLoop]], object]
    few: Sequence[InnerLoop]
    many: Sequence[InnerLoop]


@dataclass(frozen=True)
class Cost:
    """Seconds per candidate, and megabytes."""

    setup: float
    step: float
    answers: float
    peak_mb: float


def run(settings: Bench, team: Team) -> Path:
    """Run the recipe; returns the path of its table in JSON."""
    students = student_models({f"subjects.{name}.student": subject.student for name, subject in settings.subjects.items()})
    with RunFolder(settings, {}, {key: given for key, given in students.items() if given[0]}, team) as folder:
        table: list[dict[str, Any]] = []
        growth: list[dict[str, Any]] = []
        for name, subject in settings.subjects.items():
            with tempfile.TemporaryDirectory() as scratch:
                base = open_subject(subject, Path(scratch))
            loops = make_loops(subject, base, settings)
            rows = measure(name, subject, base, loops, settings)
            table += rows
            console.print(show(rows))
            if subject.growth:
                growth += plot_growth(name, base, subject, folder.path)
        path = folder.path / "inner_loop.json"
        write_json(path, {"machine": machine(), "rows": table, "growth": growth})
    console.print(f"table: {path}")
    return path


def open_subject(subject: BenchSubject, scratch: Path) -> FrozenBase:
    """The student's own folder; or random weights, with the tokenizer of that folder."""
    if not subject.architecture:
        return FrozenBase(subject.student)
    torch.manual_seed(0)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        config = AutoConfig.for_model(**subject.architecture)
        AutoModelForCausalLM.from_config(config, dtype=getattr(torch, subject.student.dtype)).save_pretrained(scratch)
    AutoTokenizer.from_pretrained(subject.student.model).save_pretrained(scratch)
    return FrozenBase(replace(subject.student, model=str(scratch)))


def make_loops(subject: BenchSubject, base: FrozenBase, settings: Bench) -> list[InnerLoop]:
    """The subject's work: good self-edits of its contexts, or, for random weights, random tokens of the published lengths."""
    plan = make_plan(Update(), subject.student)
    if subject.contexts.source:
        domain, _ = choose_task(settings)
        contexts, references = load_data(domain, subject.contexts, "contexts", questions=True)
        loops = []
        for seed, context in enumerate(contexts[: subject.candidates]):
            edit = domain.parse(references[context.id], context)
            loop = prepare(base, domain.expand(context, edit, seed), plan, seed)
            loops.append(replace(loop, prompts=tuple(domain.ask(context)), answer_tokens=domain.answer_tokens))
        return loops
    return [random_loop(subject, base, subject.row_tokens, seed) for seed in range(subject.candidates)]


def random_loop(subject: BenchSubject, base: FrozenBase, row_tokens: int, seed: int) -> InnerLoop:
    """Rows in pairs of a shorter and a longer one, `row_tokens` on average."""
    draw = random.Random(seed)
    shorter = [draw.randint(row_tokens // 2, row_tokens) for _ in range(subject.rows // 2)]
    lengths = [length for short in shorter for length in (short, 2 * row_tokens - short)] + [row_tokens] * (subject.rows % 2)
    texts = [[draw.randrange(4, len(base.tokenizer)) for _ in range(length)] for length in lengths]
    prompts = tuple(base.tokenizer.decode(text[:16]) for text in texts[: subject.questions])
    plan = make_plan(Update(), subject.student)
    return InnerLoop(tuple(Row(text, text) for text in texts), plan, seed, prompts, subject.answer_tokens)


def measure(name: str, subject: BenchSubject, base: FrozenBase, loops: Sequence[InnerLoop], settings: Bench) -> list[dict[str, Any]]:
    """One row of the table per method."""
    methods = make_methods(base, loops, subject, settings)
    costs: dict[str, list[Cost]] = {method.name: [] for method in methods}
    with terminal.stage(f"{name} · timing {len(methods)} methods", settings.turns * len(methods)) as advance:
        for method in methods:
            method.run(method.few[:1])  # what is done once in a process belongs to nobody
        for _ in range(settings.turns):
            for method in methods:
                costs[method.name].append(time_method(method))
                advance(1, method.name)
    steps = statistics.mean(loop.steps for loop in loops)
    tokens = statistics.mean(loop.trained_tokens for loop in loops)
    rows: list[dict[str, Any]] = []
    for method in methods:
        setup, step, answers, peak = (statistics.median(values) for values in zip(*map(astuple, costs[method.name]), strict=True))
        seconds = setup + step * steps + answers
        rows.append(
            {
                "model": name,
                "dtype": subject.student.dtype,
                "method": method.name,
                "candidates": len(method.many),
                "candidates_per_minute": 60 / seconds,
                "trained_tokens_per_second": tokens / seconds,
                "setup_seconds": setup,
                "train_seconds": step * steps,
                "answer_seconds": answers,
                "peak_mb": peak,
                "cohort_is_faster_by": seconds * (rows[0]["candidates_per_minute"] if rows else 60 / seconds) / 60,
                "parameters": base.parameters,
                "steps": steps,
                "timed_at_steps": [mean_steps(method.few), mean_steps(method.many)],
            }
        )
    if subject.sustained_flops:
        floor = 4 * base.parameters * tokens / subject.sustained_flops
        rows = [{**row, "floor_seconds": floor} for row in rows]
    return rows


def make_methods(base: FrozenBase, loops: Sequence[InnerLoop], subject: BenchSubject, settings: Bench) -> list[Method]:
    """The cohort takes all candidates; one at a time a few are enough, and of sequences padded as published a few steps."""
    few, many = [cut(loop, 2) for loop in loops], [cut(loop, subject.timed_steps) for loop in loops]
    padded = copy.copy(base)
    padded.settings = replace(base.settings, seal_compat=True, max_example_tokens=settings.padded_to)
    alone = slice(subject.alone)
    return [
        Method("cohort", Cohort(base).run, few, many),
        Method("SFTTrainer each", Single(base).run, few[alone], many[alone]),
        Method(f"SFTTrainer at {settings.padded_to}", Single(padded).run, [cut(loops[0], 1)], [cut(loops[0], 3)]),
        Method("plain PEFT loop", Plain(base).run, few[alone], many[alone]),
    ]


def cut(loop: InnerLoop, steps: int | None) -> InnerLoop:
    """The loop's first steps, if it has more; all of it for None."""
    if steps is None or steps >= loop.steps:
        return loop
    return replace(loop, rows=loop.rows[: steps * loop.plan.batch_size], plan=replace(loop.plan, epochs=1))


def mean_steps(loops: Sequence[InnerLoop]) -> float:
    return statistics.mean(loop.steps for loop in loops)


def time_method(method: Method) -> Cost:
    """Set-up, step and answers from three timings."""
    few, many = mean_steps(method.few), mean_steps(method.many)
    short, _ = timed(method, [replace(loop, prompts=()) for loop in method.few])
    long, _ = timed(method, [replace(loop, prompts=()) for loop in method.many])
    whole, peak = timed(method, method.many)
    step = (long - short) / (many - few) if many > few else 0.0
    return Cost(setup=max(0.0, short - few * step), step=step, answers=max(0.0, whole - long), peak_mb=peak)


def timed(method: Method, loops: Sequence[InnerLoop]) -> tuple[float, float]:
    """Seconds per candidate, and the peak in megabytes: of the GPU if there is one, else of the process."""
    gpu, status = torch.cuda.is_available(), Path("/proc/self/status")
    release_memory()
    if gpu:
        torch.cuda.reset_peak_memory_stats()
    elif status.exists():
        Path("/proc/self/clear_refs").write_text("5")
    started = time.perf_counter()
    method.run(loops)
    if gpu:
        torch.cuda.synchronize()
    seconds = (time.perf_counter() - started) / len(loops)
    if gpu:
        return seconds, torch.cuda.max_memory_allocated() / 2**20
    peak = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM")), "") if status.exists() else ""
    return seconds, int(peak.split()[1]) / 1024 if peak else float("nan")


class Plain:
    """What one would write by hand: no trainer, one PEFT model, batches padded to their longest row."""

    def __init__(self, base: FrozenBase):
        self._base = base

    def run(self, loops: Sequence[InnerLoop]) -> None:
        base = self._base
        for loop in loops:
            self._train(loop)
            answer(base.model, base.tokenizer, loop.prompts, loop.answer_tokens, base.settings.answer_batch, base.settings.chat)

    def _train(self, loop: InnerLoop) -> None:
        model = self._base.model
        self._base.reset_adapter(loop.plan.rank, loop.seed)
        weights = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(weights, lr=loop.plan.learning_rate, weight_decay=loop.plan.weight_decay)
        for step, batch in enumerate(loop.batches):
            optimizer.param_groups[0]["lr"] = loop.learning_rate(step)
            length = max(len(row.input_ids) for row in batch)
            ids = torch.tensor([row.input_ids + [0] * (length - len(row.input_ids)) for row in batch], device=self._base.device)
            labels = torch.tensor([row.labels + [IGNORED] * (length - len(row.labels)) for row in batch], device=self._base.device)
            model(input_ids=ids, labels=labels, use_cache=False).loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, loop.plan.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()


def plot_growth(name: str, base: FrozenBase, subject: BenchSubject, folder: Path) -> list[dict[str, Any]]:
    """Trained tokens per second of cohorts of many sizes, at several lengths of sequence; drawn as PNG and SVG."""
    points = []
    figure, axes = plt.subplots(figsize=(6, 4))
    with terminal.stage("growth with cohort size and sequence length", len(subject.growth_lengths) * len(subject.growth)) as advance:
        for length in subject.growth_lengths:
            speeds = []
            for size in subject.growth:
                sized = copy.copy(base)
                sized.settings = replace(base.settings, cohort=size)
                loops = [replace(random_loop(subject, base, length, seed), prompts=()) for seed in range(size)]
                method = Method("cohort", Cohort(sized).run, [cut(loop, 2) for loop in loops], [cut(loop, 6) for loop in loops])
                cost = time_method(method)
                speeds.append(statistics.mean(loop.trained_tokens / loop.steps for loop in loops) / cost.step)
                points.append({"model": name, "row_tokens": length, "cohort": size, "trained_tokens_per_second": speeds[-1]})
                advance(1, "")
            axes.plot(subject.growth, speeds, marker="o", label=f"{length} tokens per sequence")
    axes.set(xscale="log", xlabel="self-edits trained at once", ylabel="trained tokens per second", ylim=(0, None))
    axes.set_xticks(subject.growth, [str(size) for size in subject.growth])
    axes.legend()
    for suffix in ("png", "svg"):
        figure.savefig(folder / f"growth_{name}.{suffix}", bbox_inches="tight", dpi=150)
    plt.close(figure)
    return points


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": psutil.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def show(rows: Sequence[dict[str, Any]]) -> Table:
    first = rows[0]
    title = f"{first['model']}: {first['parameters'] / 1e6:.1f}M parameters, {first['dtype']}, {first['steps']:.0f} steps per candidate"
    drawn = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    drawn.add_column("method", no_wrap=True)
    for heading in ("n", "per minute", "set-up s", "train s", "answer s", "cohort"):
        drawn.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        seconds = [f"{row[key]:.3f}" for key in ("setup_seconds", "train_seconds", "answer_seconds")]
        speed = f"{row['candidates_per_minute']:.2f}"
        drawn.add_row(row["method"], str(row["candidates"]), speed, *seconds, f"{row['cohort_is_faster_by']:.1f}x")
    return drawn
