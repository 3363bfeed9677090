"""Texts by which it is known what a student must keep: those that its base writes of itself, from nothing, unless others are given.

Source: rehearsal on text that the model itself makes, for which no data need be kept (SSR, arXiv 2403.01244).
"""

import json
from pathlib import Path
from typing import Final

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from protocol.errors import InvalidInput
from student.base import FrozenBase

_AT_ONCE: Final = 128
_MOST_BYTES: Final = 2**26


def find_own_texts(base: FrozenBase, count: int, longest: int, seed: int, texts_from: str | None = None) -> list[str]:
    """So many texts, none of them empty; the same for the same seed.

    Args:
        longest: In tokens of the model that writes.
        texts_from: A file of texts, or another model that writes them; None is the base.

    Raises:
        InvalidInput: The file is no such file, or the model writes too little.
    """
    if texts_from is None:
        with base.without_adapter() as own:
            return write_texts(own.get_base_model(), base.tokenizer, count, longest, seed)
    if Path(texts_from).is_file():
        return read_texts(Path(texts_from))[:count]
    tokenizer = AutoTokenizer.from_pretrained(texts_from)
    model = AutoModelForCausalLM.from_pretrained(texts_from, dtype=getattr(torch, base.settings.dtype), use_safetensors=True)
    return write_texts(model.to(base.device).eval(), tokenizer, count, longest, seed)


def read_texts(path: Path) -> list[str]:
    """The texts of a file that has one on each line, as a JSON string.

    Raises:
        InvalidInput: Names the file, the line and what is wrong with it.
    """
    texts = []
    try:
        if (size := path.stat().st_size) > _MOST_BYTES:
            raise InvalidInput(f"{path} has {size} bytes, more than {_MOST_BYTES}; give fewer texts")
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        try:
            text = json.loads(line)
        except (ValueError, RecursionError):
            text = None
        if not isinstance(text, str) or not text.strip():
            raise InvalidInput(f'{path}, line {number} is no text as a JSON string, such as "It rains.\\n"')
        texts.append(text.encode("utf-8", errors="replace").decode())  # half characters, which JSON can hold and tokenizers cannot
    if not texts:
        raise InvalidInput(f"{path} is empty; give one text as a JSON string on each line")
    return texts


@torch.inference_mode()
def write_texts(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int, longest: int, seed: int) -> list[str]:
    """Sampled at temperature 1, from the beginning of a text.

    Raises:
        InvalidInput: The model hardly writes anything.
    """
    begin, end, pad = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    start = torch.full((_AT_ONCE, 1), end if begin is None else begin, device=model.device)
    sampled = GenerationConfig(do_sample=True, top_k=0, max_new_tokens=longest, eos_token_id=end, pad_token_id=end if pad is None else pad)
    texts: list[str] = []
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        for _ in range(2 + 4 * (count // _AT_ONCE)):
            written = model.generate(start, attention_mask=torch.ones_like(start), generation_config=sampled)
            texts += [text for text in tokenizer.batch_decode(written, skip_special_tokens=True) if text.strip()]
            if len(texts) >= count:
                return texts[:count]
    raise InvalidInput(f"the student's base writes {len(texts)} texts of itself, not {count}; lower texts, or give others by texts_from")
