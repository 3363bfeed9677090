import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from recipes.cli import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("recipe", "probes"),
    [
        ("pretrain", {"answer_in_context", "answer_unknown", "answer_by_heart", "answer_from_statements"}),
        ("pretrain_grids", {"seen_families", "unseen_families"}),
        ("pretrain_directives", {"opening"}),
    ],
)
def test_every_curriculum_makes_a_model_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, probes: set[str]) -> None:
    monkeypatch.chdir(ROOT)
    words = [
        f"runs={tmp_path}",
        f"output={tmp_path / 'model'}",
        "steps=2",
        "evaluate_every=2",
        "documents_per_step=2",
        "closed_book_per_step=2",
    ]
    words += ["architecture.hidden_size=16", "architecture.num_hidden_layers=1", "architecture.intermediate_size=16"]
    words += ["architecture.head_dim=4"] if recipe == "pretrain" else []
    assert main(["run", f"recipes/tiny/{recipe}.yaml", *words]) == 0
    model, tokenizer = (kind.from_pretrained(tmp_path / "model") for kind in (AutoModelForCausalLM, AutoTokenizer))
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    assert model.get_input_embeddings().weight.data_ptr() == model.get_output_embeddings().weight.data_ptr()
    (row,) = [row for row in json.loads((tmp_path / "model" / "training.json").read_text()) if probes <= set(row)][:1]
    assert all(0 <= row[name] <= 1 for name in probes)
