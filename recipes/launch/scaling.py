"""How scoring grows with processes: `python recipes/launch/scaling.py [--processes 2] [--pairs 5]`, from the repository root.

Runs one round of the tiny world of the published size, 50 contexts with 5 candidates each, in one process and in several, in
turns; each process has one thread. Compares what the runs' own metrics say of scoring and prints the median ratio.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUND = (
    "run recipes/tiny/train_teacher.yaml rounds=1 contexts_per_round=50 candidates=5 teacher.batch_size=25 teacher.max_new_tokens=80 "
    "finetune.epochs=1"
).split()


def measure(processes: int, runs: str, name: str) -> dict[str, float]:
    """One run's seconds by phase."""
    words = [*ROUND, f"runs={runs}", f"name={name}", "--processes", str(processes)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "recipes.cli", *words], check=True, env=environment, stdout=subprocess.DEVNULL)
    row = json.loads((Path(runs) / name / "metrics.jsonl").read_text())
    return {"candidates": row["candidates"], **{key: value for key, value in row.items() if key.endswith("_seconds")}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=5)
    options = parser.parse_args()
    ratios: dict[str, list[float]] = {"sampling": [], "scoring": [], "finetuning": []}
    with tempfile.TemporaryDirectory() as runs:
        for pair in range(options.pairs):
            one, several = (measure(count, runs, f"{pair}-{count}") for count in (1, options.processes))
            for phase, values in ratios.items():
                values.append(one[f"{phase}_seconds"] / several[f"{phase}_seconds"])
            rates = [60 * run["candidates"] / run["scoring_seconds"] for run in (one, several)]
            told = " · ".join(f"{phase} {values[-1]:.2f}x" for phase, values in ratios.items())
            print(f"pair {pair + 1}: {rates[0]:.0f} and {rates[1]:.0f} candidates scored a minute · {told}", flush=True)
    for phase, values in ratios.items():
        print(f"{phase}: {statistics.median(values):.2f} times as fast with {options.processes} processes (median of {options.pairs})")


if __name__ == "__main__":
    main()
