"""One HTTP request to an address that somebody typed in: never into a private network, and never where it leads on.

The name is resolved once, every address it has must be a public one, and the connection goes to the address that was
checked, under the name's certificate. Nothing follows redirects.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
from collections.abc import Mapping
from urllib.parse import urlsplit

_SECONDS = 10
_READ = 2_000
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class NotSent(Exception):
    """Why there is no answer, in words for a log."""


def check(url: str, *, private: bool) -> None:
    """Judge an address without asking anybody. `private`: private networks and plain HTTP are allowed.

    Raises ValueError with a message for people.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0 or not url.isprintable():
        raise ValueError("Must be an address such as https://example.com/hooks.")
    if parts.username is not None or parts.fragment or " " in url:
        raise ValueError("Must have neither a user name nor a fragment.")
    if parts.scheme == "http" and not private:
        raise ValueError("Must begin with https://.")
    if not private and _is_address(parts.hostname) and not is_public(parts.hostname):
        raise ValueError("Lies in a private network.")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_public(address: str) -> bool:
    """Whether the IP address is one of the public internet."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inside = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            inside = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inside is not None:
            return is_public(str(inside))
    return ip.is_global and not ip.is_multicast


def resolve(host: str, port: int, *, private: bool) -> str:
    """The address to connect to. Raises NotSent where the name has none, or any that is private."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise NotSent("the name can not be resolved") from None
    addresses = [str(entry[4][0]) for entry in found]
    if not addresses:
        raise NotSent("the name has no address")
    if not private and not all(is_public(address) for address in addresses):
        raise NotSent("the address lies in a private network (WEBHOOK_PRIVATE_NETWORKS is 0)")
    return addresses[0]


def post(url: str, body: bytes, headers: Mapping[str, str], *, private: bool) -> int:
    """The status that the address answers. Raises NotSent."""
    try:
        check(url, private=private)
    except ValueError as error:
        raise NotSent(str(error)) from None
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    address = resolve(host, port, private=private)
    if parts.scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=_SECONDS, context=ssl.create_default_context()
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=_SECONDS)
    # The library would resolve the name again, and might be told another address.
    connection._create_connection = lambda _address, *rest: socket.create_connection(  # type: ignore[attr-defined]
        (address, port), *rest
    )
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection.request("POST", target, body, dict(headers))
        response = connection.getresponse()
        response.read(_READ)
    except (OSError, http.client.HTTPException, UnicodeError, ValueError) as error:
        raise NotSent(f"{type(error).__name__}: {error}"[:300]) from None
    else:
        return response.status
    finally:
        connection.close()
