"""What thousands of short-lived apps in one process would each work out again, worked out once.

Nothing of the product is left out by it: routes, templates and hashes go the same way, only not so slowly.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from types import CodeType
from typing import Any
from urllib.parse import urlsplit

import argon2
import requests
import stripe
from flask import Flask
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket
from sqlalchemy.engine.default import DefaultDialect
from sqlalchemy.util import LRUCache
from werkzeug.routing import Rule

from extensions import db
from sandbox.shapes import copied
from services import passwords

REAL_HASHER = passwords._hasher


class _Templates(BytecodeCache):
    """Compiled templates, for every app of this process. Their sources are still read and compared."""

    def __init__(self) -> None:
        self._code: dict[tuple[str, str], CodeType | None] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._code.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._code[bucket.key, bucket.checksum] = bucket.code


def _remembering(compile_builder: Callable[..., Any]) -> Callable[..., Any]:
    """The function that builds a rule's address takes the rule as its first argument: equal rules can share it."""
    known: dict[tuple[Any, ...], Any] = {}

    def compile_once(self: Rule, append_unknown: bool = True) -> Any:
        # What the converters do to values is asked of the rule when the address is built.
        key = (self.rule, tuple(self._trace), repr(self.defaults), append_unknown)
        if key not in known:
            known[key] = compile_builder(self, append_unknown)
        return known[key]

    return compile_once


def _remembering_parts(parse_rule: Callable[..., Any]) -> Callable[..., Any]:
    """What a rule's text says of its parts and converters is the same in each app's map."""
    known: dict[str, tuple[list[Any], list[Any], dict[str, Any]]] = {}

    def parse_once(self: Rule, text: str) -> list[Any]:
        if text not in known:
            before = len(self._trace)
            parts = list(parse_rule(self, text))
            known[text] = parts, self._trace[before:], {**self._converters}
            return parts
        parts, trace, converters = known[text]
        self._trace.extend(trace)
        self._converters.update(converters)
        self.arguments.update(converters)
        return parts

    return parse_once


def _share_statements() -> None:
    """SQLAlchemy keeps the text of each statement by engine and dialect: one memory, and equal dialects, share it."""
    DefaultDialect.__eq__ = lambda self, other: type(self) is type(other)  # type: ignore[assignment,method-assign]
    DefaultDialect.__hash__ = lambda self: hash(type(self))  # type: ignore[assignment,method-assign]
    statements: Any = LRUCache(2_000)
    make = db._make_engine

    def make_engine(bind_key: str | None, options: dict[str, Any], app: Flask) -> Any:
        return make(bind_key, {**options, "execution_options": {"compiled_cache": statements}}, app)

    db._make_engine = make_engine  # type: ignore[method-assign]


def _share_proxies() -> None:
    """Which proxies the environment names is asked by each call to Stripe; no test has any."""
    ask = requests.sessions.get_environ_proxies
    known: dict[tuple[str, str | None], Any] = {}

    def ask_once(url: str, no_proxy: str | None = None) -> Any:
        address = urlsplit(url)._replace(path="", query="").geturl(), no_proxy
        if address not in known:
            known[address] = ask(url, no_proxy)
        return {**known[address]}

    requests.sessions.get_environ_proxies = ask_once


def _convert_quickly() -> None:
    """Stripe's package asks of each value of an answer which class it is to become; a text or number stays one."""
    convert = stripe._util._convert_to_stripe_object
    simple = {str, int, float, bool, type(None)}

    def convert_once(*, resp: Any, **how: Any) -> Any:
        return resp if type(resp) in simple else convert(resp=resp, **how)

    stripe._util._convert_to_stripe_object = convert_once  # type: ignore[assignment]


def _share_catalogs() -> None:
    """Nearly every app reads the default catalog, twice: each gets a copy of what stands in it."""
    load = tomllib.loads
    known: dict[Any, Any] = {}

    def load_once(text: str, *, parse_float: Any = float) -> Any:
        if (text, parse_float) not in known:
            known[text, parse_float] = load(text, parse_float=parse_float)
        return copied(known[text, parse_float])

    tomllib.loads = load_once  # type: ignore[assignment]


def install() -> None:
    """Once per process, before the first app is made."""
    _share_catalogs()
    _convert_quickly()
    _share_proxies()
    _share_statements()
    Flask.jinja_options = {**Flask.jinja_options, "bytecode_cache": _Templates()}
    Rule._parse_rule = _remembering_parts(Rule._parse_rule)  # type: ignore[method-assign]
    Rule._compile_builder = _remembering(Rule._compile_builder)  # type: ignore[method-assign]
    passwords._hasher = argon2.PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
