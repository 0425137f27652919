"""Opaque public identifiers: a prefix that names the kind, then characters from Crockford's base 32."""

from __future__ import annotations

import functools
import os
import secrets
import threading
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in _ALPHABET for second in _ALPHABET]
"""Ten bits at a time."""
_TIME_CHARS = 10
_RANDOM_CHARS = 13
_STOCK_BYTES = 4096


class _Stock(threading.local):
    """The system's randomness, fetched in advance for many ids.

    Each call of the system hands the interpreter to another thread, which gives it back late: under load that cost
    more than making the id. Secrets are never taken from here.
    """

    def __init__(self) -> None:
        self.bytes, self.used = b"", _STOCK_BYTES
        self.last = 0

    def take(self, size: int) -> bytes:
        if self.used + size > len(self.bytes):
            self.bytes, self.used = os.urandom(_STOCK_BYTES), 0
        self.used += size
        return self.bytes[self.used - size : self.used]


_stock = _Stock()


def _drop_stock() -> None:
    """Two processes must not hand out the same."""
    global _stock
    _stock = _Stock()


os.register_at_fork(after_in_child=_drop_stock)


def _encode(number: int, length: int) -> str:
    pairs = []
    for _ in range((length + 1) // 2):
        number, pair = number >> 10, number & 1023
        pairs.append(_PAIRS[pair])
    return "".join(reversed(pairs))[-length:]


@functools.lru_cache(maxsize=64)
def _time_text(milliseconds: int) -> str:
    """Shared by all ids of a millisecond: half of making them."""
    return _encode(milliseconds, _TIME_CHARS)


def new(prefix: str) -> str:
    """`use_` + 10 characters of time + 13 random ones (65 bits): new rows land at the end of their index.

    What one thread makes ascends, also within a millisecond: lots of one moment are spent in the order of their ids.
    """
    chance = int.from_bytes(_stock.take(9), "big")
    milliseconds = time.time_ns() // 1_000_000
    number = milliseconds << 5 * _RANDOM_CHARS | chance >> 9 * 8 - 5 * _RANDOM_CHARS
    if number <= _stock.last:
        number = _stock.last + 1 + (chance >> 40)
    _stock.last = number
    bits = 5 * _RANDOM_CHARS
    return f"{prefix}_{_time_text(number >> bits)}{_encode(number & ((1 << bits) - 1), _RANDOM_CHARS)}"


def short(prefix: str) -> str:
    """`acc_` + 16 random characters (80 bits), for the few and long-lived."""
    return f"{prefix}_{_encode(secrets.randbits(80), 16)}"


def random_hex() -> str:
    """32 random digits, for what only has to be told apart."""
    return _stock.take(16).hex()
