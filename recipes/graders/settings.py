"""A judge's settings. No torch here: recipes and `--help` read them too."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class JudgeSettings:
    """Which language model judges answers, and how it is asked.

    SEAL asked GPT-4.1: `model: gpt-4.1`, `base_url: https://api.openai.com/v1`.

    Attributes:
        model: The name that an endpoint knows its model by, or, without `base_url`, a folder or hub name. It must take `temperature` and
            `max_tokens`, which reasoning models may refuse.
        base_url: An OpenAI-compatible endpoint, such as https://api.openai.com/v1 or http://localhost:8000/v1 (vLLM); null loads
            `model` with transformers instead.
        api_key_env: The name of the environment variable that holds the endpoint's key; the key itself never stands in a recipe.
            An endpoint on this machine may do without; with an empty name no key is sent anywhere.
        revision: Hub revision of a local model.
        dtype: `float32`, `bfloat16` or `float16`, of a local model.
        trust_remote_code: Run code that a hub model brings along. Off unless you have read it.
        batch_size: Answers judged at once: by a local model in one batch, by an endpoint in as many requests.
        timeout: Seconds that an endpoint may be silent in one request.
        retries: How often a request that failed is sent again, after 0.5 s, 1 s, 2 s and so on, or when the endpoint says.
        cache: A folder that keeps verdicts, in `verdicts.jsonl`; empty is the run folder's own.
        max_missing: Share of verdicts that may be missing; above it, of fifty or more, the run stops.
    """

    model: str = ""
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    trust_remote_code: bool = False
    batch_size: int = 16
    timeout: float = 60.0
    retries: int = 4
    cache: str = ""
    max_missing: float = 0.05
