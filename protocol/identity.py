"""Content-addressed identity: equal content has an equal id, on every machine."""

import hashlib
import json
from typing import Any


def content_id(*parts: Any) -> str:
    """The first 128 bits, in hex, of SHA-256 over the parts as canonical JSON (sorted keys, UTF-8, no spaces)."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def derive_seed(*parts: Any) -> int:
    """A seed in [0, 2**31) that depends on nothing but the parts."""
    return int(content_id("seed", *parts)[:8], 16) & 0x7FFFFFFF
