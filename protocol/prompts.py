"""How prompts are put to a model: as they stand, or each as a user's message in the model's own chat template."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from protocol.errors import InvalidInput

if TYPE_CHECKING:  # the protocol loads no torch
    from transformers import PreTrainedTokenizerBase

SAME_DAY = "{% macro strftime_now(format) %}26 Jul 2024{% endmacro %}"
"""Goes before a template. Some tell the model the date, on which no sample or reward must depend; Llama 3.1 falls back on this one."""


def tokenize(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str], chat: bool, then: str = "", **options: Any) -> Any:
    """Token ids of prompts, one row each, with `then` following every one. A chat template brings its own special tokens."""
    if not chat:
        return tokenizer([prompt + then for prompt in prompts], **options)
    template = SAME_DAY + tokenizer.get_chat_template()
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], chat_template=template, add_generation_prompt=True, tokenize=False
        )
        for prompt in prompts
    ]
    return tokenizer([text + then for text in texts], add_special_tokens=False, **options)


def check_chat_template(tokenizer: "PreTrainedTokenizerBase", model: str, key: str) -> None:
    """See that prompts can be put in chat, as the setting `key` asks.

    Raises:
        InvalidInput: There is no chat template.
    """
    try:
        tokenizer.get_chat_template()
    except ValueError as error:
        raise InvalidInput(
            f"{key} is true, but the tokenizer of {model!r} has no chat template; set it to false, or take a model that has one"
        ) from error
