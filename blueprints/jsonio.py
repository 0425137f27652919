"""JSON on the wire: numbers are decimals, never floats, in both directions."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import orjson
from flask.json.provider import JSONProvider

from errors import MalformedJson, SpillwayError, ValidationError

_MAX_INTEGER_DIGITS = 400


def parse(raw: bytes, apart: str | None = None) -> Any:
    """The JSON document, numbers with a fraction or exponent as Decimal.

    Raises MalformedJson for anything that is not one strict JSON document (NaN, duplicate names, broken UTF-8, nesting
    too deep to read), ValidationError for text that no database can keep. Parts of the list `apart` of an object are
    judged one by one: in the place of one with such text stands the error.
    """
    try:
        value = _DECODER.decode(raw.decode("utf-8"))
    except MalformedJson:
        raise
    except UnicodeDecodeError:
        raise MalformedJson("The body is not valid UTF-8.") from None
    except RecursionError:
        raise MalformedJson("The body is nested too deeply.") from None
    except (ValueError, ArithmeticError):
        raise MalformedJson() from None
    if b"\\u" in raw:  # the only way to write what the strict parser does not refuse itself
        parts = value.get(apart) if apart and isinstance(value, dict) else None
        if isinstance(parts, list):
            _check_text({**value, apart: None})
            value[apart] = [_judged(part) for part in parts]
        else:
            _check_text(value)
    return value


def _judged(part: Any) -> Any:
    try:
        _check_text(part)
    except SpillwayError as error:
        return error
    return part


def _check_text(value: Any) -> None:
    """Raises ValidationError for text that no database can keep, MalformedJson where it is nested too deeply."""
    try:
        _refuse_unstorable(value, "")
    except RecursionError:
        raise MalformedJson("The body is nested too deeply.") from None


def _integer(text: str) -> int | Decimal:
    return int(text) if len(text) <= _MAX_INTEGER_DIGITS else Decimal(text)


def _refuse_constant(name: str) -> Any:
    raise MalformedJson(f"{name} is not JSON.")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedJson("An object has the same name twice.")
    return found


def _refuse_unstorable(value: Any, path: str) -> None:
    if isinstance(value, str):
        if "\x00" in value or (not value.isprintable() and _has_surrogate(value)):
            raise ValidationError({path or "body": ["Holds characters that can not be stored."]})
    elif isinstance(value, dict):
        for name, inner in value.items():
            _refuse_unstorable(name, path)
            _refuse_unstorable(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            _refuse_unstorable(inner, f"{path}.{position}" if path else str(position))


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def _number(value: Any) -> Any:
    if isinstance(value, Decimal):
        return orjson.Fragment(str(value))
    raise TypeError(f"not JSON: {type(value).__name__}")


# Made once for all requests.
_DECODER = json.JSONDecoder(
    parse_float=Decimal, parse_int=_integer, parse_constant=_refuse_constant, object_pairs_hook=_unique
)


def encode(value: Any) -> bytes:
    """Decimals as exact numbers, datetimes as RFC 3339 in UTC."""
    return orjson.dumps(value, default=_number, option=orjson.OPT_UTC_Z)


def dumps(value: Any) -> str:
    """The same as text."""
    return encode(value).decode()


class DecimalProvider(JSONProvider):
    """Makes Flask's own JSON the same as ours."""

    def dumps(self, obj: Any, **kwargs: Any) -> str:
        return dumps(obj)

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        return parse(s.encode() if isinstance(s, str) else s)
