"""The commands about a student's versions, as a user gives them."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from versioned import BASE, HARP, add, attempt, row

from protocol.identity import content_id
from recipes.cli import main
from recipes.terminal import printable
from student.version_answers import write_answers
from student.version_records import Check
from student.versions import Line

PASSED = Check(name="own", value=0.92, threshold=0.5, passed=True)
FAILED = Check(name="retention", value=0.41, threshold=0.9, passed=False, reason="forgot the harp")
Say = Callable[..., str]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Versions 1 and 2, a refusal, version 3; then back to 2, and version 4 from there."""
    path = tmp_path_factory.mktemp("made") / "line"
    with Line(path) as line:
        add(line, attempt(1, checks=(PASSED,)), [row("What?", "the drum", False, "no idea", False), row("When?", "at noon", None, "late")])
        add(
            line,
            attempt(2, ["Ulf Ranke", "Wim"]),
            [row("What?", "the harp", True, "the drum", False), row("Who?", "Wim", True, "Wim", True)],
        )
        line.refuse(attempt(5, checks=(PASSED, FAILED)), "it forgot the harp")
        add(line, attempt(3), [row("What?", "a harp", True, "the harp", True), row("Who?", "Ulf", False, "Wim", True)])
        line.rollback(2, "version 3 lost Wim")
        add(line, attempt(4), [row("Who?", "Wim", True, "Wim", True)])
    return path


@pytest.fixture
def path(made: Path, tmp_path: Path) -> Path:
    """That line, to do with as a test likes."""
    return Path(shutil.copytree(made, tmp_path / "line"))


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """Give a command; returns what it prints, on standard error if it fails."""

    def give(*words: object, code: int = 0) -> str:
        capsys.readouterr()
        assert main([str(word) for word in words]) == code
        printed = capsys.readouterr()
        assert "Traceback" not in printed.err
        return printed.err if code else printed.out

    return give


def line_of(text: str, start: str) -> list[str]:
    """The words of the one line that starts so."""
    (found,) = [line for line in text.splitlines() if line.strip().startswith(start)]
    return found.split()


def test_versions_are_listed_with_their_parents_lessons_and_checks(path: Path, say: Say) -> None:
    told = say("versions", path)
    assert line_of(told, "0 ") == ["0", "the", "untouched", "base"]
    assert line_of(told, "1 ")[:2] == ["1", "0"] and line_of(told, "1 ")[4:] == ["Tola", "Pitard", "own", "0.92"]
    assert "Ulf Ranke, Wim" in told
    assert line_of(told, "4 ")[:3] == ["4", "2", "current"]
    assert told.count("current") == 1
    assert "last rollback: to version 2 at " in told and "because version 3 lost Wim" in told
    assert "updates that made no version: 1; --refused lists them" in told


def test_refused_updates_are_listed_with_their_reasons(path: Path, say: Say) -> None:
    told = re.sub(" +", " ", say("versions", path, "--refused"))
    assert content_id(5)[:8] in told
    assert "Tola Pitard own 0.92, retention 0.41 not passed (threshold 0.9): forgot the harp it forgot the harp\n" in told
    assert "--refused lists them" not in told


def test_an_empty_line_says_that_nothing_was_learned(tmp_path: Path, say: Say) -> None:
    Line(tmp_path / "line").close()
    assert "nothing has been learned yet" in say("versions", tmp_path / "line")
    assert "no update was refused" in say("versions", tmp_path / "line", "--refused")


def test_all_that_the_log_says_is_there_as_json(path: Path, say: Say) -> None:
    told = json.loads(say("versions", path, "--json"))
    assert told["current"] == 4
    assert [(record["number"], record["parent"]) for record in told["versions"]] == [(1, 0), (2, 1), (3, 2), (4, 2)]
    assert told["versions"][0]["lessons"][0]["edit"]["examples"][0]["completion"] == "Tola Pitard plays the harp."
    assert told["refused"][0]["checks"][1]["reason"] == "forgot the harp"
    assert [record["why"] for record in told["rollbacks"]] == ["version 3 lost Wim"]


def test_strange_titles_do_not_break_the_table(tmp_path: Path, say: Say) -> None:
    titles = ["[bold]not markup[/bold] [/]", "\x1b[2J\x1b[31mred\nand\r\x07\x00\u202egnp.exe \x9b1m\u200b", "漢" * 10_000]
    with Line(tmp_path / "line") as line:
        add(line, attempt(1, titles, (Check(name="\x1b[5m", passed=False, reason="\x1b]0;title\x07" * 100),)))
        add(line, attempt(2, [f"{number:03d}" + "x" * 9997 for number in range(100)]))
        line.refuse(attempt(3, titles), "\x1b[2J\n" * 100)
    told = say("versions", tmp_path / "line", "--refused")
    assert all(letter.isprintable() or letter == "\n" for letter in told)
    assert "[bold]not markup[/bold] [/]" in told
    assert "and 97 more" in told
    assert max(len(line) for line in told.splitlines()) <= 160 and len(told) < 20_000
    assert say("versions", tmp_path / "line", "--json").isascii()


def test_a_text_of_a_million_characters_is_cut_for_the_terminal() -> None:
    assert printable("x" * 1_000_000, 10) == "xxxxxxxxx…"
    assert printable("two\n\x00lines\ud800", 60) == "two �lines�"


def test_a_rollback_says_how_it_is_taken_back(path: Path, say: Say) -> None:
    assert (
        say("rollback", path, 1, "--because", "version 4 stutters") == f"version 1 is current; tutelage rollback {path} 4 takes that back\n"
    )
    assert "because version 4 stutters" in say("versions", path)
    assert say("rollback", path, 1) == "version 1 is current already\n"
    say("rollback", path, 0, "--because", "\udcff")
    assert json.loads(say("versions", path, "--json"))["rollbacks"][-1]["why"] == "?"
    say("rollback", path, 4)
    assert line_of(say("versions", path), "4 ")[:3] == ["4", "2", "current"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("rollback", "LINE", 7), "version 7 does not exist; LINE has versions 0 (the untouched base) to 4"),
        (("rollback", "LINE", -1), "version -1 does not exist; LINE has versions 0 (the untouched base) to 4"),
        (("diff", "LINE", 1, 7), "version 7 does not exist; LINE has versions 0 (the untouched base) to 4"),
        (("diff", "LINE", 2, 2), "both versions are 2; give two different ones"),
        (("publish", "LINE", 7, "LINE/../out"), "version 7 does not exist; LINE has versions 0 (the untouched base) to 4"),
        (("publish", "LINE", 0, "LINE/../out"), "version 0 is the untouched base, which has no folder in the line"),
        (("publish", "LINE", 1, "LINE/out"), "LINE/out is in the line's own folder; give one elsewhere"),
        (("publish", "LINE", 1, "LINE/v0002"), "LINE/v0002 is there already; give a new folder"),
        (("publish", "LINE", 1, "/proc/out"), "/proc/out cannot be written"),
        (("versions", "LINE/v0001"), "LINE/v0001 is no line of versions (it has no versions.jsonl)"),
        (("versions", "LINE/versions.jsonl"), "LINE/versions.jsonl is no line of versions"),
        (("rollback", "LINE/nothing", 1), "LINE/nothing is no line of versions"),
    ],
)
def test_wrong_input_is_answered_with_the_remedy(path: Path, say: Say, words: tuple[object, ...], message: str) -> None:
    given = [str(word).replace("LINE", str(path)) for word in words]
    assert message.replace("LINE", str(path)) in say(*given, code=2)
    assert sorted(item.name for item in path.parent.iterdir()) == ["line"]
    assert not (path / "nothing").exists()


def test_a_tampered_log_is_named_by_every_command(path: Path, say: Say) -> None:
    log = path / "versions.jsonl"
    log.write_text(log.read_text().replace("Ulf Ranke", "Ulf Runke"))
    for words in (("versions", path), ("rollback", path, 1), ("diff", path, 1, 2), ("publish", path, 1, path.parent / "out")):
        assert f"{log}, line 3: it was altered" in say(*words, code=2)


def test_a_line_that_is_being_written_can_be_read_but_not_turned_back(path: Path, say: Say) -> None:
    with Line(path):
        assert "is being written by process" in say("rollback", path, 1, code=2)
        assert "current" in say("versions", path)


def test_changed_answers_are_counted_and_shown(path: Path, say: Say) -> None:
    told = say("diff", path, 2, 3)
    assert "version 2 to 3: 2 questions that both were asked: 1 lost, 0 gained, 1 reworded, 0 the same" in told
    assert line_of(told, "lost") == "lost Tola Pitard Who? Wim Ulf the harp".split()
    assert line_of(told, "reworded") == "reworded Tola Pitard What? the harp a harp the harp".split()
    assert "version 3 to 2: 2 questions that both were asked: 0 lost, 1 gained" in say("diff", path, 3, 2)


def test_changed_answers_are_there_as_json(path: Path, say: Say) -> None:
    told = json.loads(say("diff", path, 1, 2, "--json"))
    rows = told.pop("rows")
    assert told == {
        "line": str(path),
        "from": 1,
        "to": 2,
        "questions": 2,
        "asked_of_one": 1,
        "lost": 0,
        "gained": 1,
        "reworded": 0,
    }
    assert rows == [
        {
            "change": "gained",
            "context": HARP,
            "title": "Tola Pitard",
            "question": "What?",
            "gold": ["the harp"],
            "before": "the drum",
            "after": "the harp",
            "correct_before": False,
            "correct_after": True,
        }
    ]


def test_the_base_is_compared_by_what_the_first_version_says_of_it(path: Path, say: Say) -> None:
    assert "version 0 to 1: 2 questions that both were asked: 0 lost, 0 gained, 2 reworded, 0 the same" in say("diff", path, 0, 1)
    assert "version 0 to 3: 1 questions that both were asked: 0 lost, 1 gained" in say("diff", path, 0, 3)
    assert "version 3 to 0: 1 questions that both were asked: 1 lost" in say("diff", path, 3, 0)


def test_siblings_are_compared_by_their_own_answers(path: Path, say: Say) -> None:
    assert "version 3 to 4: 1 questions that both were asked: 0 lost, 1 gained" in say("diff", path, 3, 4)


def test_nothing_in_common_says_what_can_be_compared(path: Path, say: Say) -> None:
    told = say("diff", path, 0, 4, code=2)
    assert (
        "versions 0 and 4 were asked no question in common, as far as their answers.jsonl tell; compare a version with its parent" in told
    )


def test_damaged_answers_are_named_and_others_still_compared(path: Path, say: Say) -> None:
    answers = path / "v0003" / "answers.jsonl"
    answers.write_text(answers.read_text().replace("Ulf", "Wim"))
    (path / "v0001" / "adapter_model.safetensors").unlink()
    assert f"version 3 is damaged: {answers} was altered" in say("diff", path, 2, 3, code=2)
    assert "1 gained" in say("diff", path, 1, 2)


def test_a_hundred_changed_answers_are_shown_and_the_rest_counted(tmp_path: Path, say: Say) -> None:
    with Line(tmp_path / "line") as line:
        add(line, attempt(1), [row(f"{number}? \x1b[2J", "the harp " * 1000, True, "no idea", False) for number in range(130)])
    told = say("diff", tmp_path / "line", 0, 1)
    assert told.endswith("and 30 more; --json has all\n")
    assert "\x1b" not in told and len(told) < 500_000


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("versions", "rollback", "diff", "publish"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        told = capsys.readouterr().out
        assert f"tutelage {command} runs/my-line" in told and "LINE" in told and "Version 0 is the untouched base." in told


@pytest.fixture(scope="module")
def taught(llama: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A line with one real adapter on the random Llama, by whose path it is known."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = tmp_path_factory.mktemp("taught") / "line"
    torch.manual_seed(1)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(llama), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    with Line(path) as line:
        folder = line.unfinished()
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(llama).save_pretrained(folder)
        write_answers(folder, [row("What?", "the harp", True)])
        titles = ["Tola Pitard", "<b>[x](http://y)|`\n---", *(f"person {number}" for number in range(300))]
        line.add(folder, attempt(1, titles, (PASSED, FAILED)), base=BASE, fingerprint="f" * 32)
    return path


def logits(model: Any) -> Any:
    import torch

    with torch.no_grad():
        return model.eval()(torch.arange(5, 25)[None]).logits


def load_by_card(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the code of a card, from the folder beside."""
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(folder.parent)
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def test_a_published_adapter_loads_as_its_card_says(
    taught: Path, llama: str, tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    out = tmp_path / "deep" / "my-student"
    assert say("publish", taught, 1, out) == f"version 1 as a PEFT folder: {out}; its README.md says how to load it\n"
    assert [item.name for item in out.parent.iterdir()] == ["my-student"]
    files = {item.name for item in out.iterdir()}
    assert files >= {"README.md", "adapter_config.json", "adapter_model.safetensors", "tokenizer_config.json"}
    assert not files & {"answers.jsonl", "manifest.json"}
    names = load_by_card(out, monkeypatch)
    expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(llama), taught / "v0001")
    assert torch.equal(logits(names["model"]), logits(expected))
    assert names["tokenizer"]("harp").input_ids
    assert "is there already" in say("publish", taught, 1, out, code=2)


def test_a_merged_model_answers_as_base_and_adapter(
    taught: Path, llama: str, tmp_path: Path, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    out = tmp_path / "my-model"
    assert "version 1 as a whole model" in say("publish", taught, 1, out, "--merge")
    assert not (out / "adapter_config.json").exists() and (out / "model.safetensors").exists()
    base = AutoModelForCausalLM.from_pretrained(llama)
    untouched = logits(base).clone()
    expected = logits(PeftModel.from_pretrained(base, taught / "v0001"))
    names = load_by_card(out, monkeypatch)
    assert (logits(names["model"]) - expected).abs().max() < 1e-4
    assert (expected - untouched).abs().max() > 0.1
    assert names["tokenizer"]("harp").input_ids
    assert yaml.safe_load((out / "README.md").read_text().split("---\n")[1])["library_name"] == "transformers"
    with Line(tmp_path / "merged") as line:
        folder = shutil.copytree(out, line.unfinished(), dirs_exist_ok=True)
        write_answers(folder, [])
        line.add(folder, attempt(1), base=BASE, fingerprint="f" * 32)
    for words in ([], ["--merge"]):
        again = tmp_path / f"again{len(words)}"
        assert "version 1 as a whole model" in say("publish", tmp_path / "merged", 1, again, *words)
        assert (again / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


def test_a_card_tells_what_was_learned_and_checked(taught: Path, llama: str, tmp_path: Path, say: Say) -> None:
    say("publish", taught, 1, tmp_path / "out")
    _, front, card = (tmp_path / "out" / "README.md").read_text().split("---\n", maxsplit=2)
    assert yaml.safe_load(front) == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["tutelage", "continual-learning", "lora"],
    }
    assert "# base_model: put the base's name on the hub here before you upload this" in front
    assert "- parents: version 1 ← the untouched base" in card
    assert "- version 1: Tola Pitard\n" in card
    assert r"- version 1: \<b\>\[x\](http://y)\|\` ---" in card
    assert "- and 102 more" in card
    assert "| own | 0.92 | 0.5 | yes |  |" in card and "| retention | 0.41 | 0.9 | no | forgot the harp |" in card


def test_a_base_on_the_hub_is_named_as_the_hub_wants_it(path: Path, tmp_path: Path, say: Say) -> None:
    say("publish", path, 4, tmp_path / "out")
    _, front, card = (tmp_path / "out" / "README.md").read_text().split("---\n", maxsplit=2)
    assert yaml.safe_load(front)["base_model"] == "someone/base"
    assert yaml.safe_load(front)["base_model_relation"] == "adapter"
    assert 'base = AutoModelForCausalLM.from_pretrained("someone/base")' in card
    assert 'tokenizer = AutoTokenizer.from_pretrained("someone/base")' in card
    assert "- parents: version 4 ← version 2 ← version 1 ← the untouched base" in card
    assert [line for line in card.splitlines() if line.startswith("- version")] == [
        "- version 4: Tola Pitard",
        "- version 2: Ulf Ranke",
        "- version 2: Wim",
        "- version 1: Tola Pitard",
    ]


def test_a_damaged_version_is_not_published(path: Path, tmp_path: Path, say: Say) -> None:
    (path / "v0002" / "adapter_model.safetensors").write_text("other")
    told = say("publish", path, 2, tmp_path / "out", code=2)
    assert f"version 2 is damaged: {path}/v0002/adapter_model.safetensors was altered" in told
    say("publish", path, 3, tmp_path / "out")


def test_a_base_that_is_not_there_cannot_be_merged(path: Path, tmp_path: Path, say: Say) -> None:
    told = say("publish", path, 1, tmp_path / "out", "--merge", code=2)
    assert "v0001 cannot be merged into its base 'someone/base' (" in told
    assert "run this where that model is found by the name in adapter_config.json, or leave out --merge" in told
    assert sorted(item.name for item in tmp_path.iterdir()) == ["line"]


def test_an_adapter_of_another_model_cannot_be_merged(taught: Path, olmo: str, tmp_path: Path, say: Say) -> None:
    with Line(tmp_path / "line") as line:
        folder = line.unfinished()
        shutil.copytree(taught / "v0001", folder, dirs_exist_ok=True)
        config = folder / "adapter_config.json"
        config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": olmo}))
        line.add(folder, attempt(1), base=BASE, fingerprint="f" * 32)
    told = say("publish", tmp_path / "line", 1, tmp_path / "out", "--merge", code=2)
    assert f"cannot be merged into its base {olmo!r}" in told
    assert sorted(item.name for item in tmp_path.iterdir()) == ["line"]
