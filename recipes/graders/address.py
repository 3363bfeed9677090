"""An endpoint's address and its key, checked without asking it. No message holds what may be a secret."""

import ipaddress
import os
import re
from importlib.util import find_spec
from typing import Final
from urllib.parse import SplitResult, urlsplit

from protocol.errors import InvalidInput
from recipes.graders.settings import JudgeSettings

_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9]{0,15}(_[A-Z0-9]{1,15})*")


def check_endpoint(settings: JudgeSettings) -> None:
    """See that an endpoint's settings can be right, without asking it.

    Raises:
        InvalidInput: Names the key and the remedy, but no value that may be a secret.
    """
    url = _split(settings.base_url or "")
    if url is None or re.search(r"[^!-~]", url.netloc):
        raise InvalidInput("judge.base_url is no address of http or https; give one such as https://api.openai.com/v1, or null")
    refuse_secrets(settings)
    if find_spec("openai") is None:
        raise InvalidInput("judge.base_url needs the openai client; pip install --editable '.[judge]', or set judge.base_url=null")
    find_key(settings)


def refuse_secrets(settings: JudgeSettings) -> None:
    """See that no key or password stands in the settings, whether they are used or not: they are printed and saved.

    Raises:
        InvalidInput: Without the value.
    """
    url = _split(settings.base_url or "")
    if url and ("@" in url.netloc or url.query or url.fragment):
        raise InvalidInput(
            "judge.base_url has a user name, a password or a query in it; put the key into the variable of judge.api_key_env"
        )
    if settings.api_key_env and not _VARIABLE.fullmatch(settings.api_key_env):
        raise InvalidInput(
            "judge.api_key_env is not the name of an environment variable in capitals, such as OPENAI_API_KEY; if it is a key, take it "
            "out of the recipe, put it into such a variable, and give its name"
        )


def _split(address: str) -> SplitResult | None:
    try:
        url = urlsplit(address)
        return url if url.scheme in ("http", "https") and url.hostname and url.port != 0 else None
    except ValueError:
        return None


def find_key(settings: JudgeSettings) -> str:
    """The endpoint's key, or an empty one if it may do without."""
    variable, address = settings.api_key_env, settings.base_url
    if not variable:
        return ""
    refuse_secrets(settings)
    key = os.environ.get(variable, "").strip()
    if not key and not _is_here(address or ""):
        raise InvalidInput(
            f"judge.api_key_env is {variable!r}, a variable that is not set; put the key for {address} into it, or set "
            "judge.api_key_env='' if the endpoint takes none"
        )
    if not re.fullmatch(r"[!-~]*", key):
        raise InvalidInput(f"the variable {variable} (judge.api_key_env) holds no key: there is a space or a strange character in it")
    return key


def _is_here(address: str) -> bool:
    """Whether an address is of this very machine."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
