"""Opaque public identifiers: a prefix that names the kind, then characters from Crockford's base 32."""

from __future__ import annotations

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_RANDOM_CHARS = 13


def _encode(number: int, length: int) -> str:
    chars = []
    for _ in range(length):
        number, digit = divmod(number, 32)
        chars.append(_ALPHABET[digit])
    return "".join(reversed(chars))


def new(prefix: str) -> str:
    """`use_` + 10 characters of time + 13 random ones (65 bits): new rows land at the end of their index."""
    milliseconds = time.time_ns() // 1_000_000
    return f"{prefix}_{_encode(milliseconds, 10)}{_encode(secrets.randbits(65), _RANDOM_CHARS)}"


def short(prefix: str) -> str:
    """`acc_` + 16 random characters (80 bits), for the few and long-lived."""
    return f"{prefix}_{_encode(secrets.randbits(80), 16)}"
