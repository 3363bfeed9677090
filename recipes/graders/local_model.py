"""A judge that runs here, by transformers: how likely it finds 'yes' against 'no' as its next word.

Only the two words are compared, so there is always a verdict, and its score is the probability of 'yes' among the two.
"""

import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from jinja2 import TemplateError
from transformers import GenerationConfig

from protocol.errors import InvalidInput, TutelageError
from recipes.graders.settings import JudgeSettings
from recipes.graders.wording import Claim, Missing, Pair, Verdict, describe, instruct
from student.sft import is_out_of_memory, release_memory
from teacher.loading import load
from teacher.settings import TeacherSettings

_YES: Final = ("yes", "Yes", "YES")
_NO: Final = ("no", "No", "NO")


class LocalModel:
    """A frozen model that judges."""

    def __init__(self, settings: JudgeSettings):
        """Load a model, or a PEFT folder on its base.

        Raises:
            InvalidInput: Its tokenizer does not tell 'yes' from 'no' by their first tokens.
        """
        self._settings = settings
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model, self._tokenizer = load(
            TeacherSettings(
                model=settings.model, revision=settings.revision, dtype=settings.dtype, trust_remote_code=settings.trust_remote_code
            )
        )
        self._model.to(self._device)
        yes, no = self._first_tokens(_YES), self._first_tokens(_NO)
        if not yes - no or not no - yes:
            raise InvalidInput(f"judge.model {settings.model!r} begins 'yes' and 'no' with the same token; take another model")
        self._yes, self._no = sorted(yes - no), sorted(no - yes)
        self._longest = getattr(self._model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
        self._marks = [token.content for token in self._tokenizer.added_tokens_decoder.values() if token.special]

    def judge(self, pairs: Sequence[Pair | Claim]) -> Iterator[Verdict | Missing]:
        """Judge `batch_size` pairs at once; out of memory, half as many.

        Raises:
            TutelageError: There is no memory for a single pair.
        """
        done, size = 0, self._settings.batch_size
        while done < len(pairs):
            try:
                verdicts = self._judge_batch(pairs[done : done + size])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                verdicts = []
            if verdicts:
                yield from verdicts
                done += len(verdicts)
            elif size == 1:
                raise TutelageError(
                    f"out of memory at a single answer for judge.model {self._settings.model!r}; take a smaller judge or judge.dtype. "
                    "The same command goes on"
                )
            else:
                release_memory()
                size //= 2

    def _judge_batch(self, pairs: Sequence[Pair | Claim]) -> list[Verdict | Missing]:
        prompts = [self._prompt(pair) for pair in pairs]
        fits = [len(ids) < self._longest for ids in self._encode(prompts)["input_ids"]]
        probabilities = iter(self._compare([prompt for prompt, does in zip(prompts, fits, strict=True) if does]))
        return [
            _read(next(probabilities)) if does else Missing(f"longer than the {self._longest} tokens that the judge reads") for does in fits
        ]

    @torch.inference_mode()
    def _compare(self, prompts: Sequence[str]) -> list[float]:
        """The probability of 'yes' after each prompt, 'no' being the only other word."""
        if not prompts:
            return []
        batch = self._encode(prompts, padding=True, padding_side="left", return_tensors="pt").to(self._device)
        output = self._model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            generation_config=GenerationConfig(max_new_tokens=1, pad_token_id=self._tokenizer.pad_token_id),
            output_logits=True,
            return_dict_in_generate=True,
        )
        logits = output.logits[0].double()
        odds = logits[:, self._yes].logsumexp(-1) - logits[:, self._no].logsumexp(-1)
        probabilities: list[float] = odds.sigmoid().tolist()
        return probabilities

    def _encode(self, prompts: Sequence[str], **options: Any) -> Any:
        """A chat template brings its own special tokens."""
        return self._tokenizer(list(prompts), add_special_tokens=self._tokenizer.chat_template is None, **options)

    def _prompt(self, pair: Pair | Claim) -> str:
        """In the model's chat template if it has one; the template's own marks are broken up where they stand in the pair."""
        asked = describe(pair)
        for mark in self._marks:
            asked = asked.replace(mark, f"{mark[:1]} {mark[1:]}")
        if self._tokenizer.chat_template is None:
            return f"{instruct(pair)}\n\n{asked}\nVerdict:"
        try:
            return self._render([{"role": "system", "content": instruct(pair)}, {"role": "user", "content": asked}])
        except TemplateError:  # some models know no system
            return self._render([{"role": "user", "content": f"{instruct(pair)}\n\n{asked}"}])

    def _render(self, messages: list[dict[str, str]]) -> str:
        text: str = self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=False)
        return text

    def _first_tokens(self, words: Sequence[str]) -> set[int]:
        """How a reply may begin, with a space before it and without."""
        return {self._tokenizer(text, add_special_tokens=False)["input_ids"][0] for word in words for text in (word, " " + word)}


def _read(probability: float) -> Verdict | Missing:
    if math.isnan(probability):
        return Missing("the judge's probabilities are not numbers; judge.dtype may be too narrow for it")
    return Verdict(correct=probability > 0.5, score=probability)
