"""The OpenAPI 3.1 document, built from what each route declares."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Blueprint, Response

import errors
from amounts import MAX_CREDITS, to_credits
from blueprints import fields
from blueprints.answers import ANSWERS, CSV
from blueprints.auth import guard
from blueprints.wire import Operation, answer, operations

blueprint = Blueprint("openapi", __name__)

_AMOUNT = {
    "type": ["number", "string"],
    "minimum": 0,
    "maximum": MAX_CREDITS,
    "pattern": "^[0-9]{1,40}(\\.[0-9]{1,40})?$",
}
_FIELD_SCHEMAS: dict[type, dict[str, Any]] = {
    fields.Credits: _AMOUNT,
    fields.Quantity: _AMOUNT,
    fields.Cost: _AMOUNT,
    fields.StrictInteger: {"type": "integer"},
    fields.QueryInteger: {"type": "integer"},
    fields.StrictBoolean: {"type": "boolean"},
    fields.UtcTime: {"type": "string", "format": "date-time"},
    fields.Properties: {"type": "object"},
    fields.Text: {"type": "string"},
    fields.Choice: {"type": "string"},
    fields.Key: {"type": "string"},
    fields.AccountRef: {"type": "string"},
}


@blueprint.get("/api/v1/openapi.json")
@guard.public
def document() -> Response:
    return answer(build())


document.operation = Operation(  # type: ignore[attr-defined]
    summary="This document", scope=None, public=True, answers={200: "OpenApi"}
)


def _attributes(self: Any, field: Any, **_kwargs: Any) -> dict[str, Any]:
    """What apispec can not know of our fields."""
    known = _FIELD_SCHEMAS.get(type(field))
    if known is None:
        return {}
    schema = dict(known)
    if isinstance(field, fields.Credits):
        if field.positive:
            schema["exclusiveMinimum"] = schema.pop("minimum")
        if isinstance(field.load_default, int):
            schema["default"] = to_credits(field.load_default)
    if isinstance(field, fields.StrictInteger):
        schema |= {"minimum": field.low, "maximum": field.high}
    if isinstance(field, fields.Choice):
        schema["enum"] = list(field.allowed)
    elif isinstance(field, fields.Text):
        schema |= {"minLength": field.low, "maxLength": field.high}
        if field.pattern is not None:
            schema["pattern"] = f"^{field.pattern.pattern}$"
    if isinstance(field, fields.UtcTime) and field.dates:
        schema = {"type": "string", "description": "An RFC 3339 time, or a date as midnight UTC."}
    return _nullable(schema) if field.allow_none else schema


def _nullable(schema: dict[str, Any]) -> dict[str, Any]:
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return {**schema, "type": [*types, "null"]}


def _inline(_schema: Any) -> str:
    """No name: request schemas are written where they are used."""
    return ""


def build() -> dict[str, Any]:
    """The whole document for the running app."""
    plugin = MarshmallowPlugin(schema_name_resolver=_inline)
    spec = APISpec(
        title="Spillway",
        version="1",
        openapi_version="3.1.0",
        plugins=[plugin],
        info={"description": "Record usage, and always know the exact balance."},
        servers=[{"url": "/api/v1"}],
        security=[{"bearer": []}, {"apiKey": []}],
    )
    assert plugin.converter is not None
    plugin.converter.add_attribute_function(_attributes)
    spec.components.security_scheme("bearer", {"type": "http", "scheme": "bearer"})
    spec.components.security_scheme("apiKey", {"type": "apiKey", "in": "header", "name": "X-Api-Key"})
    for name, schema in ANSWERS.items():
        spec.components.schema(name, schema)
    for method, rule, operation in operations():
        path = re.sub(r"<(\w+)>", r"{\1}", rule).removeprefix("/api/v1")
        spec.path(path=path or "/", operations={method.lower(): _operation(method, path, operation, plugin)})
    return spec.to_dict()


def _operation(method: str, path: str, operation: Operation, plugin: MarshmallowPlugin) -> dict[str, Any]:
    assert plugin.converter is not None
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", path)
    ]
    if operation.query is not None:
        properties = plugin.converter.schema2jsonschema(operation.query)["properties"]
        for name, schema in properties.items():
            parameters.append({"name": name, "in": "query", "required": False, "schema": schema})
    if operation.keyed:
        key = {"type": "string", "minLength": 1, "maxLength": 255}
        parameters.append({"name": "Idempotency-Key", "in": "header", "required": False, "schema": key})
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": _operation_id(method, path),
        "parameters": parameters,
        "responses": _responses(operation),
    }
    if operation.public:
        described["security"] = []
    else:
        described["x-scope"] = operation.scope
    if operation.body is not None:
        schema = {**plugin.converter.schema2jsonschema(operation.body), "additionalProperties": False}
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {"application/json": {"schema": schema}},
        }
    return described


def _operation_id(method: str, path: str) -> str:
    return method.lower() + "_" + re.sub(r"\W+", "_", path).strip("_")


def _responses(operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, name in operation.answers.items():
        responses[str(status)] = {"description": _described(status)}
        if name:
            media = "text/csv" if name == CSV else "application/json"
            content = {media: {"schema": {"$ref": f"#/components/schemas/{name}"}}}
            responses[str(status)]["content"] = content
    for status, codes in sorted(_refusals().items()):
        responses[str(status)] = {
            "description": "One of the codes " + ", ".join(codes),
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    return responses


def _described(status: int) -> str:
    return {200: "Done, or a replay of what was done", 201: "Made", 204: "Gone"}[status]


@cache
def _refusals() -> dict[int, list[str]]:
    """Every status with the codes that come with it, from the classes themselves."""
    found: dict[int, list[str]] = {}
    for kind in errors.SpillwayError.__subclasses__():
        found.setdefault(kind.status, []).append(kind.code)
    found.setdefault(500, []).append(errors.SpillwayError.code)
    return found
