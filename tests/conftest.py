"""Random tiny models of two families with different tokenizers, and the released data where it is at hand."""

import os
import shutil
import string
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # fastest for tiny models, and does not suffer from company
os.environ.setdefault("DS_ACCELERATOR", "cpu")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

RELEASED = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole recipes first: what takes long is not left to one worker at the end."""
    items.sort(key=lambda item: item.path.parent.name not in ("tests", "launched"))


@pytest.fixture(scope="session")
def released() -> Path:
    if not RELEASED.exists():
        pytest.skip(f"the released SEAL and ARC files are not at {RELEASED}")
    return RELEASED


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Llama that reads characters."""
    return _save_random_model(tmp_path_factory.mktemp("llama"), "llama", merges=0, hidden_size=32, num_key_value_heads=2)


@pytest.fixture(scope="session")
def olmo(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random OLMo 2 whose tokenizer joins frequent characters."""
    return _save_random_model(tmp_path_factory.mktemp("olmo"), "olmo2", merges=100, hidden_size=48, num_key_value_heads=4)


@pytest.fixture(scope="session")
def qwen2(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A random Qwen2 that reads bytes; transformers gives that family its own tokenizer, whose padding is its end of text."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    folder = tmp_path_factory.mktemp("qwen2")
    tokenizer = Qwen2Tokenizer(vocab={token: i for i, token in enumerate(["<|endoftext|>", *sorted(ByteLevel.alphabet())])}, merges=[])
    tokenizer.save_pretrained(folder)
    ids = {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    _save_random_weights(folder, "qwen2", vocab_size=len(tokenizer), hidden_size=32, num_key_value_heads=2, **ids)
    return str(folder)


@pytest.fixture(scope="session")
def chatting(llama: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The random Llama with a chat template that tells the date; its tokenizer begins every text with `<s>`."""
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("chatting")
    shutil.copytree(llama, folder, dirs_exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(llama)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    turns = "{% for message in messages %}[{{ message.role }}] {{ message.content | trim }}\n{% endfor %}"
    tokenizer.chat_template = (
        "{{ bos_token }}{{ strftime_now('%d %b %Y') }}\n" + turns + "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    tokenizer.save_pretrained(folder)
    return str(folder)


def _save_random_model(folder: Path, model_type: str, merges: int, **architecture: int) -> str:
    from tokenizers import Tokenizer, decoders, models, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.decoder = decoders.Fuse()
    alphabet = sorted({*string.ascii_letters, *string.digits, *string.punctuation, " ", "\n"})
    special = ["<pad>", "<s>", "</s>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=len(special) + len(alphabet) + merges,
        special_tokens=["<pad>", "<s>", "</s>", "<unk>"],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    tokenizer.train_from_iterator(["the passage and the question and the answer of the people"] * 4, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    wrapped.save_pretrained(folder)
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    _save_random_weights(folder, model_type, vocab_size=len(wrapped), **ids, **architecture)
    return str(folder)


def _save_random_weights(folder: Path, model_type: str, **architecture: int) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        model_type,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        **architecture,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
