"""What of an answer the lexical grader reads, and the words it takes a text for.

Two texts that say the same in another spelling should give the same words: letter case, accents, vowel points and
direction marks go (Unicode NFKD and NFKC, full case folding), numbers are digits, endings of English words go.
"""

import re
import unicodedata

MAX_CHARACTERS = 2000

_NEXT_PROMPT = re.compile(r"\n\s*(?:(?:question|topic|q)\s*\d*\s*[:.]|let['\u2019]s answer a question)|<\|", re.IGNORECASE)
_SINGLE = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"  # scripts without spaces: each character is a word
_WORD = re.compile(rf"\d+(?:[.:]\d+)*|[{_SINGLE}]|[^\W\d_{_SINGLE}][^\W_{_SINGLE}]*")

_COUNTS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen twenty"
)
_ORDINALS = (
    "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth thirteenth fourteenth fifteenth sixteenth "
    "seventeenth eighteenth nineteenth twentieth"
)
_MONTHS = "january february march april june july august september october november december"
_SAME = (
    {word: str(number) for number, word in enumerate(_COUNTS.split())}
    | {word: str(number) for number, word in enumerate(_ORDINALS.split(), start=1)}
    | {word: str(10 * number) for number, word in enumerate("thirty forty fifty sixty seventy eighty ninety".split(), start=3)}
    | {month[:3]: month for month in _MONTHS.split()}
    | {"bce": "bc", "ce": "ad"}
)
_ENDINGS = ("ies", "es", "s", "ing", "ed", "e", "y")


def graded_part(answer: str) -> str:
    """The part of an answer that is graded: its start, up to where the model stops answering this question.

    That is before a further question it invents (a line `Question:`, `Topic:` or `Q:`, or the prompt's own first line),
    before a special token written out (`<|...|>`), before the first line that it has said already, and never more than
    2000 characters. Blank lines and lists stay in: the judge whose verdicts were fitted read them too.
    """
    start = answer.lstrip()[:MAX_CHARACTERS]
    end = _NEXT_PROMPT.search(start)
    said: set[str] = set()
    kept = []
    for line in (start[: end.start()] if end else start).splitlines():
        if line.strip() in said:
            break
        if line.strip():
            said.add(line.strip())
            kept.append(line)
    return "\n".join(kept).strip()


def fold(text: str) -> str:
    """Case, accents, vowel points, direction marks, and the digits of other scripts, made one."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if unicodedata.category(c) not in ("Mn", "Cf"))
    digits = "".join(str(unicodedata.decimal(c)) if c.isdecimal() else c for c in bare)
    return unicodedata.normalize("NFKC", digits).replace("\u2019", "'")


def stem(word: str) -> str:
    """An English word without its ending, if at least three letters stay; other words as they are."""
    if not word.isascii() or not word.isalpha():
        return word
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) >= len(ending) + 3 and not (ending == "s" and word.endswith("ss")):
            return word[: -len(ending)]
    return word


def words(text: str) -> list[str]:
    """The words of a text in order: "The U.S. paid 1,200 in Nov." is the, us, paid, 1200, in, november.

    Where there is none, its symbols (+, =, €).
    """
    text = fold(text).replace("%", " percent ")
    text = re.sub(r"(?<=\d),(?=\d{3})", "", text)
    text = re.sub(r"n't\b", " not", re.sub(r"'s\b", " ", text))
    text = re.sub(r"\b([a-z])\.(?=[a-z]\b)", r"\1", text)
    text = re.sub(r"(\d)(?:st|nd|rd|th)\b", r"\1", text)
    found = _WORD.findall(text) or [character for character in text if unicodedata.category(character).startswith("S")]
    return [stem(_SAME.get(word, word)) for word in found]


def capitalised(text: str) -> list[str]:
    """Words of a text that begin with a capital letter, as `words` would give them."""
    return [stem(fold(word)) for word in re.findall(r"[^\W\d_]+", text) if word[0].isupper()]
