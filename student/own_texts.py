"""What a model writes of itself, from nothing: a sample of what it knows, for which no data need be kept.

Source: learning without forgetting on generated text (SSR, arXiv 2403.01244); the use here is `student.learner`.
"""

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from protocol.errors import InvalidInput
from student.base import FrozenBase

_AT_ONCE = 128


def write_own_texts(base: FrozenBase, count: int, longest: int, seed: int, written_by: str | None = None) -> list[str]:
    """Texts sampled at temperature 1, none of them empty; the same for the same seed.

    Args:
        longest: In tokens of the model that writes.
        written_by: Another model's folder or hub name; None is the base.
    """
    if written_by is None:
        with base.without_adapter() as model:
            return _write(model.get_base_model(), base.tokenizer, count, longest, seed)
    tokenizer = AutoTokenizer.from_pretrained(written_by)
    model = AutoModelForCausalLM.from_pretrained(written_by, dtype=getattr(torch, base.settings.dtype), use_safetensors=True)
    return _write(model.to(base.device).eval(), tokenizer, count, longest, seed)


@torch.inference_mode()
def _write(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, count: int, longest: int, seed: int) -> list[str]:
    begin, end = tokenizer.bos_token_id, tokenizer.eos_token_id
    start = torch.full((_AT_ONCE, 1), end if begin is None else begin, device=model.device)
    sampled = GenerationConfig(
        do_sample=True,
        top_k=0,
        max_new_tokens=longest,
        eos_token_id=end,
        pad_token_id=end if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
    )
    texts: list[str] = []
    with torch.random.fork_rng(devices=[model.device] if model.device.type == "cuda" else []):
        torch.manual_seed(seed)
        for _ in range(2 + count // _AT_ONCE * 4):
            if len(texts) >= count:
                return texts[:count]
            written = model.generate(start, attention_mask=torch.ones_like(start), generation_config=sampled)
            texts += [text for text in tokenizer.batch_decode(written, skip_special_tokens=True) if text.strip()]
    raise InvalidInput(f"{model.name_or_path or 'the student'} writes {len(texts)} texts of itself, not {count}; lower keeping.texts")
