"""A teacher's settings. No torch here: recipes and `--help` read them too."""

from dataclasses import dataclass, field
from typing import Literal

from protocol.errors import InvalidInput


@dataclass
class EndpointSettings:
    """Where a teacher writes if not in this run's own processes: at any OpenAI-compatible endpoint.

    A teacher that is trained, or has an adapter, needs a server that takes adapters while it runs: vLLM with `--enable-lora`,
    `--max-lora-rank` of at least the adapter's rank and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, which must see the run folder by the same
    path. `--generation-config vllm` keeps what a model folder suggests for generation out of its samples, as a local teacher does.

    Attributes:
        base_url: Such as http://localhost:8000/v1 (vLLM) or https://api.openai.com/v1; null writes in this run's own processes.
        model: The name that the endpoint knows its model by; null is `teacher.model`. It must take `temperature`, `top_p`, `max_tokens`
            and `seed`, which reasoning models may refuse.
        api_key_env: The name of the environment variable that holds the endpoint's key; the key itself never stands in a recipe. An
            endpoint on this machine may do without; with an empty name no key is sent anywhere.
        concurrency: Requests under way at once, each for one candidate.
        timeout: Seconds that the endpoint may be silent in one request.
        retries: How often a request that failed is sent again, after 0.5 s, 1 s, 2 s and so on, or when the endpoint says.
        price_in, price_out: Of a million tokens read, and written, in any currency.
        budget: The most that a run may spend by these prices, all it has spent so far included; null sets no bound. No request is sent that
            could pass it.
    """

    base_url: str | None = None
    model: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    concurrency: int = 16
    timeout: float = 120.0
    retries: int = 4
    price_in: float = 0.0
    price_out: float = 0.0
    budget: float | None = None


@dataclass
class TeacherSettings:
    """Which model writes self-edits, and how it samples; or a file of what was written elsewhere.

    Attributes:
        model: Folder or hub name of the base model, or a PEFT folder, whose base is then read from it. It may be empty where a frozen
            teacher writes at an endpoint.
        adapter: PEFT folder on top of `model`: a trained teacher.
        revision: Hub revision.
        dtype: `float32`, `bfloat16` or `float16`.
        trust_remote_code: Run code that a hub model brings along. Off unless you have read it.
        chat: Put prompts into the model's own chat template, each as a user's message.
        style: The domain's prompt style; empty means its default.
        temperature, top_p: Sampling; 1.0 and 0.95 as published.
        max_new_tokens: A candidate is cut there.
        batch_size: Candidates sampled at once.
        edits: Instead of a model, a file of self-edits: SEAL's data and result files, or rows of `context` and `completions`. The
            first is taken, or as many as are asked for; another seed begins with the next.
        endpoint: Write at an endpoint. Finetuning still loads `model` here.
    """

    model: str = ""
    adapter: str | None = None
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    trust_remote_code: bool = False
    chat: bool = False
    style: str = ""
    temperature: float = 1.0
    top_p: float = 0.95
    max_new_tokens: int = 2048
    batch_size: int = 16
    edits: str | None = None
    endpoint: EndpointSettings = field(default_factory=EndpointSettings)

    @property
    def is_at_endpoint(self) -> bool:
        return self.endpoint.base_url is not None

    @property
    def label(self) -> str:
        """How messages to a user name its base model."""
        return (self.endpoint.model or self.model) if self.is_at_endpoint else self.model


@dataclass
class FinetuneSettings:
    """The M step: supervised finetuning on the kept candidates.

    The defaults are the published setting (LoRA r=64, alpha=128, 3e-4, two epochs, batches of 5). With `lora: false`
    all weights are trained. A later round goes on training the same adapter, so that a teacher of any round is one PEFT
    folder on the original base.

    Attributes:
        batch_size, accumulation: An optimizer step takes `batch_size * accumulation` self-edits, by however many processes; none
            holds more than `batch_size` at a time.
        save_every: Optimizer steps between checkpoints, from which a killed finetuning goes on.
    """

    lora: bool = True
    rank: int = 64
    alpha: int = 128
    dropout: float = 0.0
    targets: str = "all-linear"
    learning_rate: float = 3e-4
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    epochs: int = 2
    batch_size: int = 5
    accumulation: int = 1
    max_grad_norm: float = 1.0
    activation_checkpointing: bool = False
    save_every: int = 50

    @property
    def step_size(self) -> int:
        """Self-edits in an optimizer step."""
        return self.batch_size * self.accumulation

    def divide(self, processes: int) -> tuple[int, int]:
        """How each of several processes takes its part of a step: self-edits at a time, and how many times.

        Raises:
            InvalidInput: The step does not divide by the processes.
        """
        part, rest = divmod(self.step_size, processes)
        if rest:
            raise InvalidInput(
                f"finetune.batch_size {self.batch_size} x finetune.accumulation {self.accumulation} does not divide by {processes} "
                f"processes; make it a multiple of {processes}, or start another number of processes"
            )
        at_once = max(size for size in range(1, min(self.batch_size, part) + 1) if part % size == 0)
        return at_once, part // at_once
