"""A trained teacher's adapter on a running server, such as vLLM, which takes adapters while it runs. Torch-free.

Source: vLLM, "Dynamically serving LoRA adapters": `POST /v1/load_lora_adapter`.
"""

import re
from pathlib import Path
from typing import Final

from protocol.endpoint import Endpoint, Unanswered
from protocol.errors import InvalidInput, TutelageError
from protocol.files import hash_files
from teacher.endpoint import SETTING, endpoint_address
from teacher.settings import TeacherSettings

_LOAD: Final = "/load_lora_adapter"
_NO_SUCH_CALL: Final = (404, 405, 501)
_NEEDS: Final = "vLLM needs --enable-lora, --max-lora-rank and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True for that"
_SHOWN: Final = 10


def name_adapter(folder: Path) -> str:
    """The name that a server is to know an adapter by: where it comes from, run and round, and a fingerprint of what it is."""
    content = hash_files([*folder.glob("adapter_config.json"), *folder.glob("*.safetensors")])
    place = "-".join(folder.resolve().parts[-4:])
    return re.sub(r"[^A-Za-z0-9._-]+", "-", f"{place}-{content[:12]}").strip("-")


def serve_adapter(teacher: TeacherSettings) -> str:
    """See that the endpoint serves the teacher's adapter, and have it loaded if it does not yet.

    Returns:
        The name that it is served by.

    Raises:
        InvalidInput: The endpoint refuses the key, or is elsewhere.
        TutelageError: It cannot be asked, does not take adapters, or not this one.
    """
    endpoint, folder = Endpoint(endpoint_address(teacher)), Path(teacher.adapter or "")
    name, path = name_adapter(folder), str(folder.resolve())
    if name in _list(endpoint):
        return name
    answer = endpoint.post(_LOAD, {"lora_name": name, "lora_path": path})
    if isinstance(answer, Unanswered) and answer.refused and answer.status not in _NO_SUCH_CALL:
        raise InvalidInput(answer.reason)
    if name in _list(endpoint):
        return name
    said = (answer.said or answer.reason) if isinstance(answer, Unanswered) else "it said yes, but does not list it"
    raise TutelageError(
        f"{SETTING}.base_url {teacher.endpoint.base_url} does not serve the adapter {path} as {name} ({said}); {_NEEDS}, and must see that "
        "folder by the same path. The same command goes on"
    )


def check_served(teacher: TeacherSettings, setting: str, is_trained: bool) -> None:
    """Ask an endpoint whether it serves the model, and takes adapters if it is to serve any.

    Args:
        setting: The recipe's group of settings, for messages.
        is_trained: Whether adapters of the teacher are to come.

    Raises:
        InvalidInput: It does not, or cannot be asked.
    """
    endpoint = Endpoint(endpoint_address(teacher, setting))
    address, wants_adapters = endpoint.address, is_trained or teacher.adapter is not None
    place = f"{setting}.base_url {address.base_url}"
    models = endpoint.list_models()
    if isinstance(models, Unanswered):
        if models.refused and models.status not in _NO_SUCH_CALL:
            raise InvalidInput(models.reason)
        if models.status not in _NO_SUCH_CALL:
            raise InvalidInput(f"{place} is out of reach ({models.reason}); see that it is up, or correct the address")
    elif address.model not in models:
        told = ", ".join(models[:_SHOWN]) + (", …" if len(models) > _SHOWN else "")
        raise InvalidInput(f"{setting}.model is {address.model!r}, which {place} does not serve; it has {told or 'none'}")
    if not wants_adapters:
        return
    answer = endpoint.post(_LOAD, {}, again=lambda unanswered: False)  # it lacks all that it needs, so nothing is loaded
    if isinstance(models, Unanswered) or (isinstance(answer, Unanswered) and answer.status in _NO_SUCH_CALL):
        raise InvalidInput(
            f"{place} takes no adapters while it runs, which a trained teacher needs; {_NEEDS}. "
            f"Or set {setting}.base_url=null, or adapt students with the model as it is"
        )


def _list(endpoint: Endpoint) -> list[str]:
    models = endpoint.list_models()
    if isinstance(models, Unanswered):
        kind = InvalidInput if models.refused else TutelageError
        raise kind(
            f"{SETTING}.base_url {endpoint.address.base_url} does not list its models ({models.reason}), so that adapters cannot be seen "
            "there; the same command goes on"
        )
    return models
