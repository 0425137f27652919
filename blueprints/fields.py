"""Strict marshmallow fields: they refuse what they would have to round or guess."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from decimal import Context, Decimal, InvalidOperation
from typing import Any, ClassVar

import marshmallow
import simplejson
from marshmallow import fields

import amounts
from errors import ValidationError

_NUMBER = re.compile(r"-?[0-9]{1,40}(\.[0-9]{1,40})?", re.ASCII)
_MAX_INTEGER = 10**15
_MAX_DEPTH = 100
_EXACT = Context(prec=80)


class StrictSchema(marshmallow.Schema):
    """Unknown fields are refused; `load_strict` raises our ValidationError with dotted paths.

    marshmallow describes, we load: its own way asks each field that a schema has, and runs hooks found by name, which
    took longer than all else that was done for a short request. Its decorators have no effect here.

    `needs_any` tells the OpenAPI document which fields can not all be absent; to refuse that is the schema's own work.
    """

    needs_any: tuple[str, ...] = ()
    excludes: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """For each of `needs_any` the fields that can not be there with it."""

    judges_text_of: str | None = None
    """A field that may arrive with text which can not be stored: the view refuses only the part that has it."""

    nulls_are_absent = False
    """An explicit null says the same as an absent field."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        fields_by_name = {field.data_key or name: (name, field) for name, field in self.load_fields.items()}
        self._readers = {name: (key, _reader(field)) for name, (key, field) in fields_by_name.items()}
        self._required = [name for name, (_, field) in fields_by_name.items() if field.required]
        self._defaults = {
            key: field.load_default
            for key, field in self.load_fields.items()
            if field.load_default is not marshmallow.missing
        }

    def load_strict(self, data: Any) -> Any:
        """Raises ValidationError."""
        try:
            return self.load(data)
        except marshmallow.ValidationError as error:
            raise ValidationError(flatten(error.normalized_messages())) from None

    def load(self, data: Any, **_options: Any) -> Any:
        """What the fields, then `judge` and `finish` make of an object. Raises marshmallow.ValidationError."""
        if not isinstance(data, dict):
            raise marshmallow.ValidationError(self.error_messages["type"])
        loaded = self._defaults.copy()
        errors: dict[str, Any] = {}
        for name, value in data.items():
            if value is None and self.nulls_are_absent:
                continue
            if name not in self._readers:
                errors[name] = [self.error_messages["unknown"]]
                continue
            key, read = self._readers[name]
            try:
                loaded[key] = read(value, name, data) if value is not None else self.fields[key].deserialize(value)
            except marshmallow.ValidationError as error:
                errors[name] = error.messages
        for name in self._required:
            if data.get(name) is None and (self.nulls_are_absent or name not in data):
                errors[name] = [self.fields[self._readers[name][0]].error_messages["required"]]
        if errors:
            raise marshmallow.ValidationError(errors)
        self.judge(loaded)
        return self.finish(loaded, data)

    def judge(self, loaded: dict[str, Any]) -> None:
        """Where fields that are good alone are not good together. Raises marshmallow.ValidationError."""

    def finish(self, loaded: dict[str, Any], _data: dict[str, Any]) -> Any:
        """What `load` returns for the object `_data`."""
        return loaded


def _reader(field: fields.Field[Any]) -> Callable[..., Any]:
    """What makes something of a value that is not null: the field's own part where nothing else hangs on it."""
    hangs = field.validators or field.pre_load or field.post_load
    return field.deserialize if hangs else field._deserialize


def flatten(messages: Mapping[Any, Any], path: str = "") -> dict[str, list[str]]:
    """marshmallow's nested messages as `{"records.3.credits": […]}`."""
    flat: dict[str, list[str]] = {}
    for name, inner in messages.items():
        where = str(name) if not path else path if name == "_schema" else f"{path}.{name}"
        where = "body" if where == "_schema" else where
        if isinstance(inner, Mapping):
            flat |= flatten(inner, where)
        else:
            flat.setdefault(where, []).extend(str(message) for message in inner)
    return flat


def _decimal(value: Any) -> Decimal:
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return Decimal(value)
    if isinstance(value, int | Decimal) and not isinstance(value, bool):
        try:
            return Decimal(value)
        except InvalidOperation:
            pass
    raise marshmallow.ValidationError("Not a number.")


class Credits(fields.Field[int]):
    """A JSON number or decimal string of credits, exact, at most 6 decimals; loads as micro-credits."""

    def __init__(self, *, positive: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.positive = positive

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> int:
        try:
            micros = amounts.to_micros(_decimal(value))
        except ValueError as error:
            raise marshmallow.ValidationError(str(error)) from None
        if self.positive and not micros:
            raise marshmallow.ValidationError("Must be more than 0.")
        return micros


class Quantity(Credits):
    """A count or measure with at most 6 decimals; loads as millionths."""


class Cost(fields.Field[Decimal]):
    """Money in the major unit, not negative, kept digit for digit."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Decimal:
        number = _decimal(value)
        if not 0 <= number <= amounts.MAX_CREDITS:
            raise marshmallow.ValidationError(f"Must be from 0 to {amounts.MAX_CREDITS}.")
        digits, exponent = number.as_tuple()[1:]
        if len(digits) > 40 or not isinstance(exponent, int) or exponent < -40:
            raise marshmallow.ValidationError("Too many digits.")
        return number.normalize(_EXACT) if number else Decimal(0)


class StrictInteger(fields.Field[int]):
    """A JSON integer: neither 1.9 nor "3" nor true."""

    def __init__(self, *, low: int = 0, high: int = _MAX_INTEGER, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.low, self.high = low, high

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise marshmallow.ValidationError("Not a whole number.")
        if not self.low <= value <= self.high:
            raise marshmallow.ValidationError(f"Must be from {self.low} to {self.high}.")
        return value


class QueryInteger(StrictInteger):
    """A whole number in a query string."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", str(value), re.ASCII):
            raise marshmallow.ValidationError("Not a whole number.")
        return super()._deserialize(int(value), attr, data, **kwargs)


class StrictBoolean(fields.Field[bool]):
    """true or false, nothing that merely looks like it."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> bool:
        if not isinstance(value, bool):
            raise marshmallow.ValidationError("Must be true or false.")
        return value


class Text(fields.Field[str]):
    """One line of text without control characters."""

    def __init__(self, *, low: int = 1, high: int = 200, pattern: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.low, self.high = low, high
        self.pattern = re.compile(pattern, re.ASCII) if pattern else None

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise marshmallow.ValidationError("Not a string.")
        if not self.low <= len(value) <= self.high:
            raise marshmallow.ValidationError(f"Must have {self.low} to {self.high} characters.")
        if not value.isprintable() and any(unicodedata.category(char) in ("Cc", "Cs") for char in value):
            raise marshmallow.ValidationError("Must not hold control characters.")
        if self.pattern is not None and not self.pattern.fullmatch(value):
            raise marshmallow.ValidationError("Has characters or a form that is not allowed.")
        return value


class UtcTime(fields.Field[datetime]):
    """An RFC 3339 time with its offset; `dates` also takes a bare date as midnight UTC (for from and to)."""

    _TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
    _DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)

    def __init__(self, *, dates: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.dates = dates

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> datetime:
        try:
            if isinstance(value, str) and self.dates and self._DATE.fullmatch(value):
                return datetime.fromisoformat(value).replace(tzinfo=UTC)
            if isinstance(value, str) and self._TIME.fullmatch(value):
                moment = datetime.fromisoformat(value.upper()).astimezone(UTC)
                if moment.year >= 1970:
                    return moment
        except (ValueError, OverflowError):
            pass
        raise marshmallow.ValidationError("Not an RFC 3339 time with an offset, such as 2026-11-21T10:00:00Z.")


class Properties(fields.Field[str]):
    """A JSON object of the caller's own; loads as its canonical text."""

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str | None:  # type: ignore[override]
        if not isinstance(value, dict):
            raise marshmallow.ValidationError("Not an object.")
        if _is_deep(value):
            raise marshmallow.ValidationError(f"Nested more than {_MAX_DEPTH} deep.")
        return _canonical(value) if value else None


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(_MAX_DEPTH + 1):
        level = [inner for outer in level for inner in _members(outer)]
        if not level:
            return False
    return True


def _members(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _canonical(value: dict[str, Any]) -> str:
    return simplejson.dumps(value, use_decimal=True, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


class ShortList(fields.List):
    """A list of at most `most` entries; a longer one is refused as a whole, not entry by entry."""

    def __init__(self, inner: Any, *, most: int, **kwargs: Any) -> None:
        super().__init__(inner, metadata={"maxItems": most}, **kwargs)
        self.most = most

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> list[Any]:
        if isinstance(value, list) and len(value) > self.most:
            raise marshmallow.ValidationError(f"At most {self.most}.")
        return super()._deserialize(value, attr, data, **kwargs)


class Choice(Text):
    """One of a few words."""

    def __init__(self, *allowed: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.allowed = allowed

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> str:
        if value not in self.allowed:
            raise marshmallow.ValidationError(f"Must be one of {', '.join(self.allowed)}.")
        return str(value)


class Key(Text):
    """An idempotency key."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(low=1, high=255, **kwargs)


class AccountRef(Text):
    """Spillway's id or the operator's external id of an account."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(low=1, high=128, pattern=r"[A-Za-z0-9._:@-]+", **kwargs)


class ReturnPath(Text):
    """Where a browser goes after Stripe; `services.stripe.returns` says which addresses are allowed."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(low=1, high=2000, **kwargs)
