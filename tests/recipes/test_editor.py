import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given, strategies
from omegaconf import OmegaConf
from scripted import RIGHT, TASK, WRONG, ScriptedStudent

from protocol.errors import InvalidInput, MalformedEdit, TutelageError
from protocol.exchange import InProcessExchange
from protocol.journal import CandidateRecord, DecisionRecord, Journal
from protocol.messages import Change, Context, Question, RewardRequest
from recipes.base_settings import RecipeSettings
from recipes.candidates import read_edit, record_candidate
from recipes.cli import main
from recipes.config import to_yaml
from recipes.domains import DOMAINS
from recipes.editor import Editor, open_editor
from recipes.editor_rules import find_copies, find_repeats, plain
from recipes.editor_settings import EditorSettings
from recipes.graders.settings import JudgeSettings
from recipes.graders.wording import Claim, Missing, Verdict
from recipes.loop_settings import LoopSettings
from recipes.m_step import tell_why_none
from recipes.run_folder import check_run_folder
from recipes.scoring import Scoring, score_candidates
from recipes.settings import TrainTeacher
from recipes.stages import write_candidates
from recipes.team import Team
from teacher.settings import TeacherSettings

ROOT = Path(__file__).resolve().parents[2]
KNOWLEDGE = DOMAINS["knowledge"]
ADA = Context(title="Ada", passage="Ada plays the harp. She lives in Leeds.", questions=(Question(text="?", answers=("x",)),))


def editor(folder: Path, judge: JudgeSettings | None = None, **rules: Any) -> Editor:
    opened = open_editor(RecipeSettings(editor=EditorSettings(**rules), judge=judge or JudgeSettings()), KNOWLEDGE, folder)
    assert opened is not None
    return opened


def candidate(text: str, index: int = 0) -> CandidateRecord:
    return record_candidate(KNOWLEDGE, ADA, text, "round-1", index, 0, "implications")


def edit(folder: Path, *texts: str, judge: JudgeSettings | None = None, **rules: Any) -> list[CandidateRecord]:
    journal = Journal(folder / "journal.jsonl")
    records = [candidate(text, index) for index, text in enumerate(texts)]
    return editor(folder, judge, **rules).edit([ADA], records, "round-1", journal)


def learned(record: CandidateRecord) -> list[str] | None:
    own = read_edit(record, KNOWLEDGE, ADA)
    return [example.completion for example in own.examples] if own else None


@pytest.mark.parametrize(
    ("rules", "text", "left"),
    [
        ({"duplicates": "drop"}, "Ada plays the harp.\n2. ada plays harp\nAda bakes.\n- Ada bakes!", ["Ada plays the harp.", "Ada bakes."]),
        ({"duplicates": "drop"}, "...\n...\n!!!", ["...", "!!!"]),
        ({"drop_lines": ["^(She|He) ", "(?i)life"]}, "She bakes.\nAda bakes.\nLIFE is short.", ["Ada bakes."]),
        ({"keep_lines": ["Ada", "Bob"]}, "She bakes.\nAda bakes.\nBob sings.", ["Ada bakes.", "Bob sings."]),
        ({"copies": "drop"}, "She lives in Leeds!\nAda lives in Leeds.\nplays the HARP", ["Ada lives in Leeds."]),
        ({"copies": "drop", "most_copied": 0.5}, "She lives in Leeds.\nAda bakes.", ["Ada bakes."]),
        ({"drop_lines": ["^2"], "shortest_lines": 2}, "one\n2\nthree", ["one", "three"]),
    ],
)
def test_a_rule_drops_lines_and_the_student_learns_the_rest(tmp_path: Path, rules: dict[str, Any], text: str, left: list[str]) -> None:
    (mended,) = edit(tmp_path, text, **rules)
    assert learned(mended) == left
    assert mended.decision is not None and mended.decision.decision == "mended"
    assert (mended.taught, mended.text) == ("\n".join(left), text)


@pytest.mark.parametrize(
    ("rules", "text", "reason"),
    [
        ({"duplicates": "refuse"}, "Ada bakes.\nAda bakes", "editor.duplicates: line 2 repeats an earlier one: 'Ada bakes'"),
        ({"refuse_lines": ["^She "]}, "Ada bakes.\nShe bakes.", "editor.refuse_lines: '^She ' is found in line 2: 'She bakes.'"),
        ({"drop_lines": ["bakes"]}, "Ada bakes.\nShe bakes.", "editor.drop_lines: no line is left (dropped 2 by drop_lines)"),
        ({"copies": "refuse"}, "Ada bakes.\nShe bakes.\nin Leeds", "editor.copies: line 3 stands in the passage: 'in Leeds'"),
        (
            {"most_copied": 0.5},
            "Ada bakes.\nin Leeds\nthe harp",
            "editor.most_copied: 2 of 3 lines stand in the passage, more than 50%",
        ),
        ({"shortest_lines": 3}, "one\ntwo", "editor.shortest_lines: 2 lines, fewer than 3"),
        ({"longest_lines": 1}, "one\ntwo", "editor.longest_lines: 2 lines, more than 1"),
        ({"shortest_characters": 7}, "one\ntwo", "editor.shortest_characters: 6 characters, fewer than 7"),
        ({"longest_characters": 5}, "one\ntwo", "editor.longest_characters: 6 characters, more than 5"),
        (
            {"duplicates": "drop", "shortest_lines": 2},
            "one\none",
            "editor.shortest_lines: 1 lines left (dropped 1 by duplicates), fewer than 2",
        ),
    ],
)
def test_a_rule_refuses_a_self_edit_with_its_reason(tmp_path: Path, rules: dict[str, Any], text: str, reason: str) -> None:
    (refused,) = edit(tmp_path, text, **rules)
    assert (refused.refused, refused.malformed, learned(refused)) == (reason, None, None)


def test_what_breaks_no_rule_is_accepted_as_it_is(tmp_path: Path) -> None:
    (accepted,) = edit(tmp_path, "Ada bakes.\nBob sings.", duplicates="drop", copies="refuse", longest_lines=2, shortest_characters=20)
    assert accepted.decision == DecisionRecord(stage="round-1", context=ADA.id, index=0, decision="accepted")
    assert read_edit(accepted, KNOWLEDGE, ADA) == read_edit(candidate("Ada bakes.\nBob sings."), KNOWLEDGE, ADA)


def test_what_is_no_self_edit_is_not_decided_on(tmp_path: Path) -> None:
    blank, good = edit(tmp_path, " ", "Ada bakes.", longest_lines=1)
    assert (blank.decision, blank.unusable) == (None, "the candidate is empty; a self-edit has at least one line of text")
    assert good.unusable is None


def test_lines_are_compared_without_marks_case_punctuation_and_what_nobody_sees() -> None:
    assert plain(" 12. The  Harp\u200b, \u202eof Leeds!") == "harp of leeds"
    assert find_repeats({0: "2 harps", 3: "3 harps", 7: "* 2 harps."}) == [7]
    assert find_copies({0: "harp", 1: "harps", 2: "?"}, "The harp?") == [0]


@pytest.mark.parametrize(
    ("text", "kept", "written"),
    [
        ("a\nb --- c\nd", (0, 2), "a\nc"),
        ("Question 1: A?\nAnswer: B\n\nQuestion 2: C?\nAnswer: D", (0,), "Question 1: A?\nAnswer: B\n"),
        ("A?\nAnswer: B\nQuestion 2: C?\nAnswer: D\nQuestion 3: E?\nAnswer: F", (0, 2), "A?\nAnswer: B\nQuestion 3: E?\nAnswer: F"),
        ("A?\nAnswer: B\nQuestion 2: C?\nAnswer: D", (1,), None),  # the prompt has written "Question 1: " already
        ("x\nA list:\ny\n1. z", (1, 3), None),  # an opening line before "1." would not be read
        ("Ada sings.\nBob\x00", (1,), None),  # too much of it would be no text
    ],
)
def test_a_completion_is_written_with_fewer_lines_where_it_can_be(text: str, kept: tuple[int, ...], written: str | None) -> None:
    assert KNOWLEDGE.shorten(text, ADA, kept) == written


PIECES = [
    "Ada",
    "1. x",
    "Question 2: a",
    "Answer: b",
    "Question 1: c Answer: d",
    "---",
    " ",
    "\x00",
    "\u2028",
    "A list:",
    "Question",
    "3:",
    "\n",
]


@hypothesis.settings(max_examples=300, deadline=None)
@given(strategies.lists(strategies.sampled_from(PIECES), min_size=1, max_size=8), strategies.sampled_from(["\n", " "]), strategies.data())
def test_what_is_written_with_fewer_lines_reads_as_just_these(pieces: list[str], between: str, data: strategies.DataObject) -> None:
    text = between.join(pieces)
    try:
        lines = [example.completion for example in KNOWLEDGE.parse(text, ADA).examples]
    except MalformedEdit:
        return
    kept = sorted(data.draw(strategies.sets(strategies.sampled_from(range(len(lines))), min_size=1)))
    written = KNOWLEDGE.shorten(text, ADA, kept)
    if written is not None:
        read = KNOWLEDGE.parse(written, ADA).examples
        assert [example.completion.strip() for example in read] == [lines[i].strip() for i in kept]


def test_where_no_completion_says_it_the_teacher_learns_the_candidate_and_the_student_what_is_left(tmp_path: Path) -> None:
    text = "A?\nAnswer: B\nQuestion 2: C?\nAnswer: D"
    (mended,) = edit(tmp_path, text, drop_lines=["B"])
    assert (mended.taught, learned(mended)) == (text, ["Question 2: C?\nAnswer: D"])


# Rewards


def pay(request: RewardRequest) -> Change:
    return Change(base=WRONG, adapted=(RIGHT if len(request.edit.examples) == 1 else WRONG,))


def test_a_mended_self_edit_has_its_own_reward_and_a_refused_one_the_floor(tmp_path: Path) -> None:
    records = edit(tmp_path, "Ada bakes.\nShe bakes.", "Ada bakes.", "the harp", drop_lines=["^She "], copies="refuse")
    scoring, student = Scoring(KNOWLEDGE, TASK, LoopSettings(), repeats=1, seed=0), ScriptedStudent(pay)
    journal = Journal(tmp_path / "journal.jsonl")
    scored = score_candidates(scoring, {"s": InProcessExchange(student)}, [ADA], records, "round-1", journal)
    assert [(own.reward, own.running) for own in scored] == [(1.0, True), (1.0, True), (-1.0, False)]
    assert len(journal.results) == 1  # what is left of the first is the second
    assert tell_why_none(None, records[2:], None) == "the editor refused every self-edit"  # type: ignore[arg-type]


# Going on


def test_a_run_that_goes_on_decides_nothing_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recipes.editor.BATCH", 2)
    texts = ["one\none", "two", "three\nfour", "five\nfive"]
    whole = edit(tmp_path, *texts, duplicates="drop", longest_lines=1)
    path = tmp_path / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    assert [json.loads(line)["kind"] for line in lines] == ["journal"] + 4 * ["decision"]
    path.write_bytes(b"".join(lines[:3]) + lines[3][:20])  # a crash in mid-write
    asked: list[str] = []
    parse = type(KNOWLEDGE).parse
    monkeypatch.setattr(type(KNOWLEDGE), "parse", lambda self, text, context: asked.append(text) or parse(self, text, context))
    again = editor(tmp_path, duplicates="drop", longest_lines=1).edit([ADA], whole, "round-1", Journal(path))
    assert (again, path.read_bytes()) == (whole, b"".join(lines))
    assert set(asked) == {"three\nfour", "five\nfive", "five"}  # the last as it is written back
    asked.clear()
    editor(tmp_path, duplicates="drop", longest_lines=1).edit([ADA], whole, "round-1", Journal(path))
    assert asked == []


def test_without_an_editor_a_journal_is_as_it_was(tmp_path: Path) -> None:
    source = tmp_path / "edits.jsonl"
    source.write_text(json.dumps({"title": "Ada", "context": ADA.passage, "completions": ["Ada bakes."]}))
    journal = Journal(tmp_path / "journal.jsonl")
    write_candidates(Team(), TeacherSettings(edits=str(source)), KNOWLEDGE, [ADA], 1, 0, "round-1", journal)
    head, written = journal.path.read_text().splitlines()
    assert head == '{"kind":"journal","version":1}'
    assert written == (
        f'{{"kind":"candidate","stage":"round-1","context":"{ADA.id}","index":0,"seed":0,"style":"","text":"Ada bakes.","malformed":null}}'
    )
    assert open_editor(TrainTeacher(editor=EditorSettings(drop_lines=[])), KNOWLEDGE, tmp_path) is None


def test_a_run_folder_from_before_there_were_editors_goes_on(tmp_path: Path) -> None:
    settings = TrainTeacher(recipe="train_teacher", name="old", runs=str(tmp_path))
    (tmp_path / "old").mkdir()
    recipe = OmegaConf.create(to_yaml(settings))
    del recipe["editor"]
    (tmp_path / "old" / "recipe.yaml").write_text(OmegaConf.to_yaml(recipe))
    check_run_folder(settings)
    with pytest.raises(InvalidInput, match=r"editor\.duplicates was None, is now 'drop'"):
        check_run_folder(replace(settings, editor=EditorSettings(duplicates="drop")))


# Hostile texts


@pytest.mark.parametrize(
    ("text", "malformed"),
    [
        ("x" * 200_000, "the candidate has 200000 characters, more than 100000; lower teacher.max_new_tokens"),
        ("x\n" * 40_000, "the candidate makes 40000 training sequences, more than 1024"),
        ("\x00\x01" * 50, "the candidate is not text: 100 of its 100 characters are control or broken ones"),
    ],
)
def test_what_is_beyond_the_domain_never_reaches_the_editor(tmp_path: Path, text: str, malformed: str) -> None:
    (record,) = edit(tmp_path, text, duplicates="drop")
    assert (record.malformed, record.decision) == (malformed, None)


@pytest.mark.parametrize(
    ("text", "decision", "left"),
    [
        ("a" * 99_999 + "!", "accepted", 1),
        ("a b " * 24_999, "accepted", 1),
        ("ab\n" * 1024, "mended", 1),
        ("\n".join(f"the {n} " + "\u0301" * 80 for n in range(1024)), "accepted", 1024),
        ("\u202eصحيح\nAda\u202e harp\u200b", "mended", 1),
        ("\ud800 half\n? half", "mended", 1),
        ("Ada \x07bakes all day long.\nAda bakes.", "accepted", 2),
    ],
)
def test_hostile_texts_are_decided_on_in_bounded_time(tmp_path: Path, text: str, decision: str, left: int) -> None:
    began = time.perf_counter()
    patterns = ["(a+)+$", "^(a|aa)+$", r"\p{Arabic}"]
    (record,) = edit(tmp_path, text, duplicates="drop", copies="drop", drop_lines=patterns[2:], keep_lines=[*patterns, "."])
    assert time.perf_counter() - began < 5
    assert record.decision is not None and record.decision.decision == decision
    assert len(learned(record) or ()) == left


# Contradictions


class ScriptedJudge:
    """Finds a lute in every contradiction; of a gong it says nothing."""

    def __init__(self) -> None:
        self.asked: list[Claim] = []

    def judge(self, claims: Sequence[Claim]) -> Iterator[Verdict | Missing]:
        self.asked += claims
        for claim in claims:
            said = "lute" in claim.statement
            yield Missing("no") if "gong" in claim.statement else Verdict(correct=said, score=float(said))


@pytest.fixture
def judge(monkeypatch: pytest.MonkeyPatch) -> ScriptedJudge:
    scripted = ScriptedJudge()
    monkeypatch.setattr("recipes.graders.judge._open_model", lambda settings: scripted)
    return scripted


def test_lines_that_contradict_the_passage_are_dropped_and_those_without_a_verdict_stay(tmp_path: Path, judge: ScriptedJudge) -> None:
    texts = ["Ada plays the lute.\nAda bakes.\nAda hits the gong.", "Ada bakes.\nAda bakes.", "A lute."]
    records = edit(tmp_path, *texts, judge=JudgeSettings(model="m"), contradictions="drop", duplicates="drop")
    assert [learned(record) for record in records] == [["Ada bakes.", "Ada hits the gong."], ["Ada bakes."], None]
    assert records[2].refused == "editor.contradictions: no line is left (dropped 1 by contradictions)"
    statements = [claim.statement for claim in judge.asked]
    assert statements == ["Ada plays the lute.", "Ada bakes.", "Ada hits the gong.", "A lute."]  # each once
    assert {claim.passage for claim in judge.asked} == {ADA.passage}


def test_a_self_edit_that_contradicts_the_passage_is_refused(tmp_path: Path, judge: ScriptedJudge) -> None:
    (record,) = edit(tmp_path, "Ada bakes.\nAda plays the lute.", judge=JudgeSettings(model="m"), contradictions="refuse")
    assert record.refused == "editor.contradictions: line 2 contradicts the passage: 'Ada plays the lute.'"


def test_what_another_rule_refused_is_not_asked_about(tmp_path: Path, judge: ScriptedJudge) -> None:
    edit(tmp_path, "the harp", judge=JudgeSettings(model="m"), contradictions="drop", copies="refuse")
    assert judge.asked == []


def test_verdicts_outlive_a_crash_before_the_decision(tmp_path: Path, judge: ScriptedJudge) -> None:
    edit(tmp_path, "A lute.\nAda bakes.", judge=JudgeSettings(model="m"), contradictions="drop")
    (tmp_path / "journal.jsonl").unlink()
    judge.asked.clear()
    (record,) = edit(tmp_path, "A lute.\nAda bakes.", judge=JudgeSettings(model="m"), contradictions="drop")
    assert (learned(record), judge.asked) == (["Ada bakes."], [])


def test_too_many_missing_verdicts_stop_the_run_before_anything_is_decided(tmp_path: Path, judge: ScriptedJudge) -> None:
    text = "\n".join(f"gong {number}" for number in range(50))
    with pytest.raises(TutelageError, match="50 of 50 verdicts of judge:m are missing"):
        edit(tmp_path, text, judge=JudgeSettings(model="m"), contradictions="drop")
    assert list(Journal(tmp_path / "journal.jsonl").decisions) == []


# Recipes


@pytest.mark.parametrize(
    ("recipe", "words", "message"),
    [
        ("tiny/compare", ["editor.longest_lines=0"], "editor.longest_lines is 0; it must be at least 1, or null"),
        ("tiny/compare", ["editor.shortest_lines=3", "editor.longest_lines=2"], "editor.shortest_lines is 3, above editor.longest_lines"),
        ("tiny/compare", ["editor.most_copied=1.5"], "editor.most_copied is 1.5; it must be in [0, 1), or null"),
        ("tiny/compare", ["editor.most_copied=.5", "editor.copies=refuse"], "but editor.most_copied is 0.5; leave one out"),
        ("tiny/compare", ["editor.duplicates=keep"], "editor.duplicates: Invalid value 'keep', expected one of ['drop', 'refuse']"),
        ("tiny/compare", ["editor.drop_lines=['a','(']"], "editor.drop_lines[1] is '(': unclosed group; it must be a regular expression"),
        ("tiny/compare", ["editor.drop_line=[a]"], "unknown key 'editor.drop_line'; Did you mean 'drop_lines'?"),
        (
            "tiny/compare",
            ["editor.contradictions=drop"],
            "editor.contradictions is 'drop', which asks the judge: judge.model is empty; give an endpoint's model",
        ),
        ("tiny/compare", ["editor.contradictions=drop", "judge.model=./nowhere"], "judge.model is './nowhere', which does not exist"),
        (
            "tiny/few_shot",
            ["editor.duplicates=drop", "editor.longest_lines=9"],
            "editor.duplicates, editor.longest_lines: set, but self-edits of domain few_shot are directives and have no lines; leave it",
        ),
        ("bench", ["editor.copies=drop"], "editor.copies: set, but no teacher writes self-edits in recipe bench; leave it out"),
    ],
)
def test_a_recipe_with_wrong_editor_settings_is_refused(
    recipe: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["run", f"recipes/{recipe}.yaml", "--dry-run", *words]) == 2
    assert message in capsys.readouterr().err
