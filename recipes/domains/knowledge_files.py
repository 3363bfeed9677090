"""Read knowledge contexts from files: SQuAD JSON, the released SEAL JSON, JSONL, plain text, folders, `datasets`.

Whatever is wrong is an `InvalidInput` that names the file, the place, the value and the remedy.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from protocol.errors import InvalidInput
from protocol.messages import Context, Question
from recipes.domains.files import find_source, read_json, read_jsonl, read_text

TEXT_SUFFIXES = (".txt", ".md")
SHAPE = '{"title": str, "context": str, "questions": [{"question": str, "answer": str}]}'


def load_contexts(source: str, split: str = "") -> list[Context]:
    """Read every context of a source.

    Args:
        source: A file (`.json`, `.jsonl`, `.txt`, `.md`), a folder of text files with an optional questions `.jsonl`, a
            folder written by `Dataset.save_to_disk`, or `hub:NAME` for a data set of the Hugging Face hub.
        split: The split of a data set; files have none.
    """
    if source.startswith("hub:"):
        return _from_datasets(source, split)
    path = find_source(source, "give a file or folder, or hub:NAME for a hub data set")
    if path.is_dir():
        is_saved = (path / "state.json").exists() or (path / "dataset_dict.json").exists()
        return _from_datasets(source, split) if is_saved else _from_folder(path)
    match path.suffix.lower():
        case ".json":
            contexts = list(_from_json(path))
        case ".jsonl":
            contexts = [context_of(row, f"{path}, line {number}") for number, row in read_jsonl(path, SHAPE)]
        case ".txt" | ".md":
            contexts = [_from_text(path)]
        case suffix:
            raise InvalidInput(f"{path}: cannot read a {suffix or 'nameless'} file; use .json, .jsonl, .txt or .md")
    if not contexts:
        raise InvalidInput(f"{path} holds no contexts; each is {SHAPE}")
    return contexts


def _from_json(path: Path) -> Iterator[Context]:
    content = read_json(path)
    if isinstance(content, dict) and "data" in content:  # SQuAD v1.1 and v2.0
        yield from _from_squad(content["data"], path)
    elif isinstance(content, dict) and isinstance(content.get("articles"), list):  # SEAL's result files
        for index, article in enumerate(content["articles"]):
            yield context_of(_with_questions(article), f"{path}, article {index}")
    elif isinstance(content, list):
        for index, row in enumerate(content):
            yield context_of(row, f"{path}, item {index}")
    else:
        raise InvalidInput(f"{path} holds a {type(content).__name__}; it must be a list of {SHAPE} or SQuAD's {{'data': [...]}}")


def _from_squad(articles: Any, path: Path) -> Iterator[Context]:
    try:
        for article in articles:
            for paragraph in article["paragraphs"]:
                questions = [
                    {"question": qa["question"], "answers": [a["text"] for a in qa["answers"]]} for qa in paragraph["qas"] if qa["answers"]
                ]
                row = {"title": _title(article.get("title")), "context": paragraph["context"], "questions": questions}
                yield context_of(row, f"{path}, article {article.get('title', '?')!r}")
    except (KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(f"{path} is not SQuAD-shaped: {type(error).__name__} {error} (data > paragraphs > qas > answers)") from error


def _with_questions(article: Any) -> Any:
    """A result file has a context's questions beside each completion, once per repeat."""
    try:
        asked = article["completions"][0]["questions"]
        return {**article, "questions": [question for question in asked if question.get("rep") == asked[0].get("rep")]}
    except (KeyError, IndexError, TypeError, AttributeError):
        return article


def _title(title: Any) -> Any:
    """SQuAD's titles are Wikipedia's, with underscores for spaces; SEAL wrote them with spaces."""
    return title.replace("_", " ") if isinstance(title, str) else title or ""


def _from_text(path: Path) -> Context:
    return context_of({"title": path.stem.replace("_", " "), "context": read_text(path)}, str(path))


def _from_folder(folder: Path) -> list[Context]:
    """Text files are passages; rows of `.jsonl` files, {"passage": file name, "question", "answer"}, their questions.

    A row may leave `passage` out where the folder holds one passage.
    """
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in TEXT_SUFFIXES)
    if not files:
        raise InvalidInput(f"{folder} holds no .txt or .md passages")
    questions: dict[str, list[Any]] = {path.name: [] for path in files}
    for path in sorted(folder.glob("*.jsonl")):
        for number, row in read_jsonl(path, SHAPE):
            place = f"{path}, line {number}"
            if not isinstance(row, dict):
                raise InvalidInput(f'{place} is a {type(row).__name__}; it must be {{"passage": file, "question": str, "answer": str}}')
            row = dict(row)
            name = row.pop("passage", files[0].name if len(files) == 1 else None)
            if not isinstance(name, str) or name not in questions:
                raise InvalidInput(f"{place}: passage is {name!r}; it must be one of {', '.join(questions)}")
            questions[name].append(_question(row, place))
    return [_from_text(path).model_copy(update={"questions": tuple(questions[path.name])}) for path in files]


def _from_datasets(source: str, split: str) -> list[Context]:
    """Rows with SQuAD's columns; rows that share a passage become one context."""
    import datasets

    try:
        if source.startswith("hub:"):
            rows = datasets.load_dataset(source.removeprefix("hub:"), split=split or "train")
        else:
            rows = datasets.load_from_disk(source)
            rows = rows[split or "train"] if isinstance(rows, datasets.DatasetDict) else rows
    except (OSError, ValueError, KeyError) as error:
        raise InvalidInput(f"data set {source!r}, split {split or 'train'!r}, cannot be loaded: {error}") from error
    contexts = _grouped(rows, source)
    if not contexts:
        raise InvalidInput(f"data set {source!r}, split {split or 'train'!r}, has no rows")
    return contexts


def _grouped(rows: Iterable[Any], source: str) -> list[Context]:
    merged: dict[tuple[str, str], Context] = {}
    for index, row in enumerate(rows):
        if "question" in row:
            row = {
                "title": _title(row.get("title")),
                "context": row.get("context"),
                "questions": [{k: row[k] for k in ("question", "answer", "answers") if row.get(k)}],
            }
        context = context_of(row, f"{source}, row {index}")
        key = (context.title, context.passage)
        known = merged.get(key)
        merged[key] = context.model_copy(update={"questions": known.questions + context.questions}) if known else context
    return list(merged.values())


def context_of(row: Any, place: str) -> Context:
    """The context of a row of `SHAPE`; `place` says where it stands, for messages."""
    if not isinstance(row, dict):
        raise InvalidInput(f"{place} is a {type(row).__name__}; it must be {SHAPE}")
    passage = row.get("context", row.get("passage"))
    if not isinstance(passage, str) or not passage.strip():
        raise InvalidInput(f"{place}: context is {_shown(passage)}; it must be the passage, a text")
    questions = row.get("questions", [])
    if not isinstance(questions, list):
        raise InvalidInput(f"{place}: questions is {_shown(questions)}; it must be a list")
    try:
        return Context(title=row.get("title", ""), passage=passage, questions=tuple(_question(q, place) for q in questions))
    except ValidationError as error:
        remedy = "; split what is longer" if error.errors()[0]["type"] == "string_too_long" else ""
        raise InvalidInput(f"{place}: {_first(error)}{remedy}") from error


def _question(row: Any, place: str) -> Question:
    """{"question", "answer"}, or {"question", "answers"} with a list of texts or SQuAD's {"text": [...]}. A blank answer is none."""
    if not isinstance(row, dict) or not isinstance(row.get("question"), str):
        raise InvalidInput(f'{place}: a question is {_shown(row)}; it must be {{"question": str, "answer": str}}')
    answers: Any = row.get("answers", row.get("answer", []))
    if isinstance(answers, dict):
        answers = answers.get("text", [])
    if isinstance(answers, str):
        answers = [answers]
    try:
        return Question(text=row["question"], answers=tuple(dict.fromkeys(answer for answer in answers if answer.strip())))
    except (ValidationError, TypeError, AttributeError) as error:
        problem = _first(error) if isinstance(error, ValidationError) else f"answers is {_shown(answers)}"
        raise InvalidInput(f"{place}, question {row['question'][:60]!r}: {problem}; answers are texts") from error


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    return f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
