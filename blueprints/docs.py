"""`/api/docs`: the OpenAPI document for people, rendered by the app itself."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, render_template
from markupsafe import Markup, escape

import errors
import settings
from blueprints import jsonio, openapi
from blueprints.auth import guard
from blueprints.examples import PROBLEM
from blueprints.refusals import WORDS

blueprint = Blueprint("docs", __name__)
_SECRET = "spw_…"  # noqa: S105 - what stands in for one
_SECTIONS = {
    "begin": "Begin",
    "authentication": "Authentication",
    "amounts": "Amounts",
    "idempotency": "Idempotency",
    "cursors": "Lists and cursors",
    "holds": "Holds",
    "caps": "Caps and alerts",
    "limits": "Limits",
}
"""What the guide explains, by anchor."""
_LIMITS = (
    ("minimum", "at least {:,}"),
    ("exclusiveMinimum", "more than {:,}"),
    ("maximum", "at most {:,}"),
    ("minItems", "at least {} of them"),
)


@dataclass(frozen=True, slots=True)
class Field:
    """A parameter or a field of a body; `place` is "path", "query", "header" or "body"."""

    name: str
    place: str
    kind: str
    required: bool
    limits: str
    default: str
    description: str


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer that is no refusal. `example` is None where it has no body."""

    status: str
    description: str
    media_type: str
    example: str | None


@dataclass(frozen=True, slots=True)
class Shown:
    """One operation as the page shows it. One field of `needs_any` at least is needed; `refusals` are by status."""

    id: str
    method: str
    path: str
    summary: str
    scope: str
    fields: list[Field]
    needs_any: list[str]
    replies: list[Reply]
    refusals: list[tuple[str, list[str]]]
    curl: str


@blueprint.get("/api/docs")
@guard.public
def page() -> str:
    document = openapi.build()
    codes = sorted(errors.BY_CODE.values(), key=lambda kind: kind.status)
    return render_template(
        "docs/index.html",
        base=settings.current().public_url,
        sections=_SECTIONS,
        groups=_groups(document),
        problem=_pretty(PROBLEM),
        codes=codes,
        words=WORDS,
        marked=_marked,
    )


def _marked(text: str) -> Markup:
    """`…` as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704 - escaped before


def _groups(document: dict[str, Any]) -> dict[str, list[Shown]]:
    """Operations by the name of their group, in the order that openapi.TAGS gives."""
    found: dict[str, list[Shown]] = {name: [] for name in openapi.TAGS.values()}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for tag in operation["tags"]:
                found.setdefault(tag, []).append(_shown(method.upper(), path, operation))
    return {name: shown for name, shown in found.items() if shown}


def _shown(method: str, path: str, operation: dict[str, Any]) -> Shown:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return Shown(
        id=operation["operationId"],
        method=method,
        path=f"/api/v1{path}",
        summary=operation["summary"],
        scope=_scope(operation),
        fields=[*map(_parameter, operation["parameters"]), *_body_fields(content)],
        needs_any=[name for option in _schema(content).get("anyOf", ()) for name in option["required"]],
        replies=[_reply(status, answer) for status, answer in operation["responses"].items() if status < "400"],
        refusals=[
            (status, answer["description"].split(", "))
            for status, answer in operation["responses"].items()
            if status >= "400"
        ],
        curl=_curl(method, path, operation, content),
    )


def _scope(operation: dict[str, Any]) -> str:
    """In words; of alternatives such as `tokens|admin` the second is for service tokens."""
    if "x-scope" not in operation:
        return "none, and no token"
    own, _, service = operation["x-scope"].partition("|")
    service = operation.get("x-service-scope", service)
    return f"`{own}`, or `{service}` of a service token" if service else f"`{own}`"


def _parameter(parameter: dict[str, Any]) -> Field:
    schema = {**parameter["schema"], "description": parameter["description"]}
    return _field(parameter["name"], parameter["in"], schema, parameter["required"])


def _schema(content: dict[str, Any] | None) -> dict[str, Any]:
    return content["schema"] if content is not None else {}


def _body_fields(content: dict[str, Any] | None) -> Iterator[Field]:
    schema = _schema(content)
    for name, described in schema.get("properties", {}).items():
        yield _field(name, "body", described, name in schema.get("required", ()))


def _field(name: str, place: str, schema: dict[str, Any], required: bool) -> Field:
    default = schema.get("default")
    return Field(
        name=name,
        place=place,
        kind=_kind(schema),
        required=required,
        limits=_limits(schema),
        default="" if default is None else json.dumps(default),
        description=schema.get("description", ""),
    )


def _kind(schema: dict[str, Any]) -> str:
    types = schema.get("type", "any")
    types = types if isinstance(types, list) else [types]
    words = ["time" if kind == "string" and schema.get("format") == "date-time" else kind for kind in types]
    if "array" in words:
        words[words.index("array")] = f"list of {_kind(schema.get('items', {}))}"
    return " or ".join(words)


def _limits(schema: dict[str, Any]) -> str:
    """Bounds, lengths and choices in words."""
    if "minimum" in schema and "maximum" in schema:
        found = [f"{schema['minimum']:,} to {schema['maximum']:,}"]
    else:
        found = [words.format(schema[name]) for name, words in _LIMITS if name in schema]
    if "maxLength" in schema:
        low, high = schema.get("minLength", 0), schema["maxLength"]
        found.append(f"{high} characters" if low == high else f"{low} to {high} characters")
    choices = schema.get("enum") or schema.get("items", {}).get("enum")
    if choices:
        found.append("one of " + ", ".join(choices) if "enum" in schema else ", ".join(choices))
    return "; ".join(found)


def _reply(status: str, answer: dict[str, Any]) -> Reply:
    for media_type, content in answer.get("content", {}).items():
        example = content.get("example")
        text = example if isinstance(example, str | None) else _pretty(example)
        return Reply(status, answer["description"], media_type, text)
    return Reply(status, answer["description"], "", None)


def _pretty(value: Any) -> str:
    """JSON with a line for each entry, and short objects on one."""
    return _laid_out(value, "")


def _laid_out(value: Any, indent: str) -> str:
    plain = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(plain) <= 96 or not isinstance(value, dict | list) or not value:
        return plain
    deeper = indent + "  "
    if isinstance(value, dict):
        parts = [f"{json.dumps(name)}: {_laid_out(part, deeper)}" for name, part in value.items()]
        return "{\n" + ",\n".join(deeper + part for part in parts) + f"\n{indent}}}"
    return "[\n" + ",\n".join(deeper + _laid_out(part, deeper) for part in value) + f"\n{indent}]"


def _curl(method: str, path: str, operation: dict[str, Any], content: dict[str, Any] | None) -> str:
    """A line to paste: only the token has to be filled in."""
    for parameter in operation["parameters"]:
        if parameter["in"] == "path":
            path = path.replace(f"{{{parameter['name']}}}", parameter["example"])
        elif parameter["in"] == "query" and parameter["required"]:
            path += f"{'&' if '?' in path else '?'}{parameter['name']}={parameter['example']}"
    parts = [_address(method, path)]
    if "x-scope" in operation:
        parts.append(f"-H 'Authorization: Bearer {_SECRET}'")
    if content is not None and content["example"]:
        if any(parameter["name"] == "Idempotency-Key" for parameter in operation["parameters"]):
            parts.append("-H 'Idempotency-Key: job-991'")
        parts.append("-H 'Content-Type: application/json'")
        parts.append("-d " + _quoted(jsonio.dumps(content["example"])))
    return " \\\n  ".join(parts)


def _address(method: str, path: str) -> str:
    """The line's beginning; what a shell would take apart is quoted."""
    address = f"{settings.current().public_url}/api/v1{path}"
    return f"curl {'' if method == 'GET' else f'-X {method} '}" + (_quoted(address) if "?" in path else address)


def _quoted(text: str) -> str:
    """For a shell."""
    return "'" + text.replace("'", "'\\''") + "'"
