import json
from pathlib import Path

from recipes.cli import main

SMALL = "{model_type: llama, vocab_size: 1000, hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 4, intermediate_size: 64}"
SUBJECT = "candidates: 2, alone: 1, rows: 3, row_tokens: 8, questions: 1, answer_tokens: 2, timed_steps: 4, sustained_flops: 1e9"


def test_the_benchmark_times_every_method_on_the_same_work(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    student = "student: {model: recipes/tiny/models/seed_oss, rank: 4, epochs: 2}"
    subject = f"{{{student}, architecture: {SMALL}, {SUBJECT}, growth: [1, 2], growth_lengths: [8]}}"
    recipe = tmp_path / "bench.yaml"
    recipe.write_text(f"recipe: bench\ngrader: exact_match\nturns: 1\npadded_to: 64\nsubjects: {{small: {subject}}}\n")
    words = [f"runs={tmp_path}"]
    assert main(["run", str(recipe), *words]) == 0
    result = json.loads((tmp_path / "bench" / "inner_loop.json").read_text())
    methods = ["cohort", "SFTTrainer each", "SFTTrainer at 64", "plain PEFT loop"]
    rows = [row for row in result["rows"] if row["model"] == "small"]
    assert [row["method"] for row in rows] == methods
    for row in rows:
        assert {
            "model",
            "dtype",
            "method",
            "candidates",
            "candidates_per_minute",
            "trained_tokens_per_second",
            "setup_seconds",
            "peak_mb",
        } <= set(row)
        assert row["candidates_per_minute"] > 0
        assert row["peak_mb"] > 0
        assert row["floor_seconds"] > 0
    assert [row["candidates"] for row in rows] == [2, 1, 1, 1]
    assert [point["cohort"] for point in result["growth"]] == [1, 2]
    assert (tmp_path / "bench" / "growth_small.png").stat().st_size > 1000
    assert (tmp_path / "bench" / "growth_small.svg").read_text().startswith("<?xml")
    assert "cohort" in capsys.readouterr().out
