"""Two vocabularies for the tiny world, which cut invented names in different places.

Words are whole; names are two pieces. Both are WordPiece with single characters to fall back on, so any ASCII text can be
read. Decoding gives back the text: spaces before punctuation and around line ends are removed.
"""

import re
import string
from typing import Literal

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from recipes.domains.knowledge_text import STYLES, question_prompt
from recipes.tiny import world
from recipes.tiny.encoding import SPECIAL, finish_tokenizer

Split = Literal["stem", "vowel"]

_WORD = r"\n|[A-Za-z0-9']+|[^\sA-Za-z0-9']"


def _texts() -> list[str]:
    """Every wording the world can produce, with its slots empty."""
    texts = [*STYLES.values(), question_prompt("", ""), world.TITLE, "Question 1: Answer:", *world.GENERIC, "he she He She"]
    texts += [*world._OPENINGS, *world._TURNS, *world._SENTENCES, *world._DOUBLE_SENTENCES]
    for relation in world.RELATIONS.values():
        texts += [relation.tested, *relation.asked, *relation.stated, *relation.told, *relation.values]
    return [re.sub(r"\{\w+\}", " ", text) for text in texts]


def split_name(name: tuple[str, str], split: Split) -> tuple[str, str]:
    """Where a tokenizer cuts an invented name: after its stem ("Put", "o") or after its first vowel ("Pu", "to")."""
    if split == "stem":
        return name
    start, end = re.match(r"([^aeiou]*[aeiou])(.*)", "".join(name), re.IGNORECASE).groups()  # type: ignore[union-attr]
    return start, end


def build_tokenizer(split: Split) -> PreTrainedTokenizerFast:
    """A tokenizer of some 850 tokens that spells people and cities in two pieces each, cut as `split` says."""
    words = {word for text in _texts() for word in re.findall(_WORD, text)} - set(world.CITIES)
    for name in world.FIRST_PIECES + world.LAST_PIECES + world.CITY_PIECES:
        start, end = split_name(name, split)
        words |= {start, f"##{end}"}
    characters = string.ascii_letters + string.digits + "'"
    words |= set(string.punctuation) | set(characters) | {f"##{c}" for c in characters}
    vocabulary = {word: index for index, word in enumerate([*SPECIAL, *sorted(words)])}

    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>", max_input_chars_per_word=64))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)
    glue = [(" \n", "\n"), ("\n ", "\n"), *((f" {mark}", mark) for mark in ".,?:;!"), (" - ", "-")]
    tokenizer.decoder = decoders.Sequence(
        [decoders.WordPiece("##", cleanup=False), decoders.Fuse(), *(decoders.Replace(old, new) for old, new in glue)]
    )
    return finish_tokenizer(tokenizer)
