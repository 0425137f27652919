"""Where a browser may be sent after Checkout: our own pages, and hosts that the operator named. Never anywhere else."""

from __future__ import annotations

import unicodedata
from urllib.parse import quote, urlsplit

import settings
from errors import ValidationError

_KEPT = "/%:?&=#+,;@!$'()*~[]"
_LONGEST = 2000


def is_allowed(address: str) -> bool:
    """A path with one leading `/`, or an address on a host of ALLOWED_RETURN_HOSTS."""
    if len(address) > _LONGEST or any(unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") for char in address):
        return False
    if address.startswith("/"):
        return address[1:2] not in ("/", "\\")
    return _names_allowed_host(address)


def _names_allowed_host(address: str) -> bool:
    if "\\" in address or " " in address:
        return False  # browsers read these in their own way
    try:
        parts = urlsplit(address)
        host = parts.hostname
        port = parts.port
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not host or "@" in parts.netloc:
        return False
    allowed = settings.current().allowed_return_hosts
    return host in allowed or f"{host}:{port}" in allowed


def check(field: str, address: str | None) -> None:
    """Raises ValidationError on `field`."""
    if address is not None and not is_allowed(address):
        raise ValidationError({field: ["Must be a path that begins with one /, or name an allowed host."]})


def absolute(address: str) -> str:
    """The full address of an allowed one, as Stripe wants it."""
    tidy = quote(address, safe=_KEPT)
    return settings.current().public_url + tidy if address.startswith("/") else tidy


def success_url(onward: str | None) -> str:
    """Our own return page, which fulfils the purchase and leads on. Stripe fills in the session's id."""
    onward_part = f"&to={quote(onward, safe='')}" if onward else ""
    return f"{settings.current().public_url}/checkout/return?session_id={{CHECKOUT_SESSION_ID}}{onward_part}"
