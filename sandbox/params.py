"""Parameters of a request: from nested form fields to values, checked against the types of the installed `stripe`.

The list of what a call takes is not written down here: it is read from the package's own TypedDicts, so the sandbox
refuses what today's API refuses and follows the package when that is upgraded.
"""

import functools
import re
import types
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, Union, get_args, get_origin

import stripe.params
from stripe._request_options import RequestOptions
from typing_extensions import get_type_hints, is_typeddict

from sandbox.errors import ApiError, invalid

OPTIONS = frozenset(RequestOptions.__annotations__)
# Free texts that Stripe lets one empty although the package types them as plain strings.
EMPTIED = frozenset({"description", "email", "name", "phone", "statement_descriptor", "nickname", "unit_label"})
# Names in the options' types that the package imports for type checkers only.
CHECKERS_ONLY = {"StripeContext": str, "Mapping": Mapping, "HTTPClient": object}
MAX_KEYS, MAX_KEY, MAX_VALUE = 50, 40, 500
Tree = dict[str, Any]


def nested(fields: Iterable[tuple[str, str]]) -> Tree:
    """The tree that names like `items[0][price]` and `expand[]` spell."""
    tree: Tree = {}
    for name, value in fields:
        keys = [name.split("[", 1)[0], *re.findall(r"\[([^\]]*)\]", name)]
        place = tree
        for key in keys[:-1]:
            step = place.setdefault(key, {})
            if not isinstance(step, dict):
                raise invalid(f"Invalid parameter: {name}", name)
            place = step
        place[keys[-1] or str(len(place))] = value
    return tree


@functools.cache
def fields_of(kind: type) -> dict[str, Any]:
    """Name → type, without the options that never reach the wire."""
    hints = get_type_hints(kind, localns=CHECKERS_ONLY)
    return {name: hint for name, hint in hints.items() if name not in OPTIONS}


@functools.cache
def typed_dict(name: str) -> type:
    """`checkout.SessionCreateParams` → the package's class."""
    place: Any = stripe.params
    for part in name.split("."):
        place = getattr(place, part)
    return place  # type: ignore[no-any-return]


def checked(name: str, tree: Tree) -> Tree:
    """Values of the right types; ApiError 400 names the first parameter that is unknown, missing or ill-typed."""
    return _record(tree, typed_dict(name), "")


def _record(tree: Tree, kind: type, path: str) -> Tree:
    known = fields_of(kind)
    for key in tree:
        if key not in known:
            raise invalid(f"Received unknown parameter: {_join(path, key)}", _join(path, key), "parameter_unknown")
    for key in sorted(kind.__required_keys__ - OPTIONS):  # type: ignore[attr-defined]
        if key not in tree:
            raise invalid(f"Missing required param: {_join(path, key)}.", _join(path, key), "parameter_missing")
    return {key: _value(value, known[key], _join(path, key)) for key, value in tree.items()}


def _join(path: str, key: str) -> str:
    return f"{path}[{key}]" if path else key


def _members(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) in (Union, types.UnionType):
        return tuple(part for member in get_args(hint) for part in _members(member))
    return (hint,)


def _value(value: Any, hint: Any, path: str) -> Any:
    members = _members(hint)
    if isinstance(value, dict):
        return _container(value, members, path)
    return _scalar(value, members, path)


def _container(value: Tree, members: tuple[Any, ...], path: str) -> Any:
    for member in members:
        if is_typeddict(member):
            return _record(value, member, path)
        if get_origin(member) is list and all(key.isdigit() for key in value):
            (kind,) = get_args(member)
            return [_value(value[key], kind, f"{path}[{key}]") for key in sorted(value, key=int)]
        if get_origin(member) is dict:
            return _mapping(value, get_args(member)[1], path)
    expected = "array" if any(get_origin(member) is list for member in members) else "string"
    raise invalid(f"Invalid {expected}", path, f"parameter_invalid_{expected}" if expected == "string" else None)


def _mapping(value: Tree, kind: Any, path: str) -> Tree:
    if path.endswith("metadata]") or path == "metadata":
        return _metadata(value, path)
    return {key: _value(part, kind, f"{path}[{key}]") for key, part in value.items()}


def _metadata(value: Tree, path: str) -> Tree:
    if len(value) > MAX_KEYS:
        raise invalid(f"You can only have {MAX_KEYS} metadata keys", path)
    for key, text in value.items():
        here = f"{path}[{key}]"
        if not isinstance(text, str):
            raise invalid(f"Metadata values must be strings, but for key '{key}' you passed an object", here)
        if len(key) > MAX_KEY:
            raise invalid(f"Metadata keys can be up to {MAX_KEY} characters long: '{key}'", here)
        if len(text) > MAX_VALUE:
            raise invalid(f"Metadata values must be under {MAX_VALUE} characters, but for '{key}' it is longer", here)
    return value


def _scalar(value: str, members: tuple[Any, ...], path: str) -> Any:
    literals = [literal for member in members if get_origin(member) is Literal for literal in get_args(member)]
    if value in literals:
        return value
    if value == "":
        return _empty(members, path)
    for kind in (bool, int, Decimal, float):
        if kind in members:
            number = _number(kind, value)
            if number is not None:
                return number
    words = [literal for literal in literals if literal != ""]
    if str in members and not words:
        return value
    raise _ill_typed(value, members, words, path)


def _empty(members: tuple[Any, ...], path: str) -> Any:
    if str in members and path.split("[")[-1].rstrip("]") in EMPTIED:
        return ""
    raise invalid(
        f"You passed an empty string for '{path}'. We assume empty values are an attempt to unset a parameter; however "
        f"'{path}' cannot be unset. You should remove '{path}' from your request or supply a non-empty value.",
        path,
        "parameter_invalid_empty",
    )


def _number(kind: type, value: str) -> bool | int | Decimal | float | None:
    if kind is bool:
        return {"true": True, "false": False}.get(value)
    if kind is int:
        return int(value) if re.fullmatch(r"[+-]?\d{1,18}", value, re.ASCII) else None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    if not number.is_finite():
        return None
    return number if kind is Decimal else float(number)


def _ill_typed(value: str, members: tuple[Any, ...], words: list[Any], path: str) -> ApiError:
    name = path.split("[")[-1].rstrip("]")
    if words:
        return invalid(f"Invalid {name}: must be one of {', '.join(map(str, words))}", path)
    for kind, title in ((int, "integer"), (bool, "boolean"), (Decimal, "decimal"), (float, "decimal")):
        if kind in members:
            return invalid(f"Invalid {title}: {value}", path, f"parameter_invalid_{title}" if kind is int else None)
    title = "array" if any(get_origin(member) is list for member in members) else "object"
    return invalid(f"Invalid {title}", path)
