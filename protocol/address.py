"""Where an OpenAI-compatible endpoint is, and its key: checked without asking it. No message holds what may be a secret."""

import ipaddress
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Final
from urllib.parse import SplitResult, urlsplit

from protocol.errors import InvalidInput

_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9]{0,15}(_[A-Z0-9]{1,15})*")


@dataclass(frozen=True)
class Address:
    """An endpoint, and how it is asked.

    Attributes:
        setting: The recipe's group of settings that says so, such as `judge`, for messages.
        model: The name that the endpoint knows its model by.
        base_url: Such as https://api.openai.com/v1.
        api_key_env: The name of the environment variable that holds the key; with an empty one no key is sent.
        timeout: Seconds that the endpoint may be silent in one request.
        retries: How often a request that failed is sent again.
    """

    setting: str
    model: str
    base_url: str
    api_key_env: str
    timeout: float
    retries: int


def check_address(address: Address) -> None:
    """See that an endpoint's settings can be right, without asking it.

    Raises:
        InvalidInput: Names the key and the remedy, but no value that may be a secret.
    """
    url = _split(address.base_url)
    if url is None or re.search(r"[^!-~]", url.netloc):
        raise InvalidInput(
            f"{address.setting}.base_url is no address of http or https; give one such as https://api.openai.com/v1, or null"
        )
    refuse_secrets(address.setting, address.base_url, address.api_key_env)
    if find_spec("openai") is None:
        raise InvalidInput(
            f"{address.setting}.base_url needs the openai client; pip install --editable '.[endpoint]', "
            f"or set {address.setting}.base_url=null"
        )
    find_key(address)


def refuse_secrets(setting: str, base_url: str | None, api_key_env: str) -> None:
    """See that no key or password stands in the settings, whether they are used or not: they are printed and saved.

    Args:
        setting: The recipe's group of settings, for messages.

    Raises:
        InvalidInput: Without the value.
    """
    url = _split(base_url or "")
    if url and ("@" in url.netloc or url.query or url.fragment):
        raise InvalidInput(
            f"{setting}.base_url has a user name, a password or a query in it; put the key into the variable of {setting}.api_key_env"
        )
    if api_key_env and not _VARIABLE.fullmatch(api_key_env):
        raise InvalidInput(
            f"{setting}.api_key_env is not the name of an environment variable in capitals, such as OPENAI_API_KEY; if it is a key, take "
            "it out of the recipe, put it into such a variable, and give its name"
        )


def find_key(address: Address) -> str:
    """The endpoint's key, or an empty one if it may do without."""
    variable, setting = address.api_key_env, address.setting
    if not variable:
        return ""
    refuse_secrets(setting, address.base_url, variable)
    key = os.environ.get(variable, "").strip()
    if not key and not _is_here(address.base_url):
        raise InvalidInput(
            f"{setting}.api_key_env is {variable!r}, a variable that is not set; put the key for {address.base_url} into it, or set "
            f"{setting}.api_key_env='' if the endpoint takes none"
        )
    if not re.fullmatch(r"[!-~]*", key):
        raise InvalidInput(f"the variable {variable} ({setting}.api_key_env) holds no key: there is a space or a strange character in it")
    return key


def _split(address: str) -> SplitResult | None:
    try:
        url = urlsplit(address)
        return url if url.scheme in ("http", "https") and url.hostname and url.port != 0 else None
    except ValueError:
        return None


def _is_here(address: str) -> bool:
    """Whether an address is of this very machine."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
