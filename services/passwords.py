"""Password hashes: argon2id with the memory and passes that OWASP's password storage cheat sheet asks for at least."""

from __future__ import annotations

import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

# 19 MiB a hash, so that many people logging in at once do not exhaust a small machine.
_hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_nobody: str | None = None


def hashed(password: str) -> str:
    """A salted hash to keep. Slow on purpose: never inside a transaction."""
    return _hasher.hash(password)


def unusable() -> str:
    """A hash that no password matches."""
    return hashed(secrets.token_urlsafe(32))


def matches(password_hash: str | None, password: str) -> bool:
    """Whether the password is the hashed one. None, for a person who is not there, takes the same time."""
    global _nobody
    if password_hash is None:
        _nobody = _nobody or unusable()
    try:
        return _hasher.verify(password_hash or _nobody or "", password) and password_hash is not None
    except (VerificationError, InvalidHashError):
        return False


def is_outdated(password_hash: str) -> bool:
    """Whether the hash was made with weaker parameters than today's."""
    return _hasher.check_needs_rehash(password_hash)
