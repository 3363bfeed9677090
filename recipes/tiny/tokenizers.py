"""Two word-level vocabularies for the tiny world: one knows names whole, one spells them in pieces.

Both are WordPiece with single characters to fall back on, so any ASCII text can be read. Decoding gives back the
text: spaces before punctuation and around line ends are removed.
"""

import re
import string

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from recipes.domains.knowledge_text import STYLES, question_prompt
from recipes.tiny import world

_WORD = r"\n|[A-Za-z0-9']+|[^\sA-Za-z0-9']"
_SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>"]


def _texts() -> list[str]:
    """Every wording the world can produce, with its slots empty."""
    texts = [*STYLES.values(), question_prompt("", ""), world.TITLE, "Question 1: Answer:", *world.GENERIC, "he she He She"]
    texts += [*world._OPENINGS, *world._TURNS, *world._SENTENCES, *world._DOUBLE_SENTENCES]
    for relation in world.RELATIONS.values():
        texts += [relation.tested, *relation.asked, *relation.stated, *relation.told, *relation.values]
    return [re.sub(r"\{\w+\}", " ", text) for text in texts]


def build_tokenizer(names_in_pieces: bool) -> PreTrainedTokenizerFast:
    """A tokenizer of about 900 tokens; `names_in_pieces` writes "Puto Hessen" as `Put ##o Hes ##sen`, cities too."""
    words = {word for text in _texts() for word in re.findall(_WORD, text)}
    named = [world.FIRST_PIECES, world.LAST_PIECES, *([world.CITY_PIECES] if names_in_pieces else [])]
    pieces = [piece for group in named for piece in group]
    if names_in_pieces:
        words -= set(world.CITIES)
        words |= {start for start, _ in pieces} | {f"##{end}" for _, end in pieces}
    else:
        words |= {start + end for start, end in pieces}
    characters = string.ascii_letters + string.digits + "'"
    words |= set(string.punctuation) | set(characters) | {f"##{c}" for c in characters}
    vocabulary = {word: index for index, word in enumerate([*_SPECIAL, *sorted(words)])}

    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>", max_input_chars_per_word=64))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_WORD), behavior="removed", invert=True)
    tokenizer.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])])
    glue = [(" \n", "\n"), ("\n ", "\n"), *((f" {mark}", mark) for mark in ".,?:;!"), (" - ", "-")]
    tokenizer.decoder = decoders.Sequence(
        [decoders.WordPiece("##", cleanup=False), decoders.Fuse(), *(decoders.Replace(old, new) for old, new in glue)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
    )
