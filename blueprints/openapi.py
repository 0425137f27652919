"""The OpenAPI 3.1 document, built from what each route declares."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import marshmallow
from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flask import Blueprint, Response

import errors
import settings
from amounts import MAX_CREDITS, to_credits
from blueprints import examples, fields
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
_DATES = "An RFC 3339 time, or a date, which is its midnight UTC."
_PATH = r"^/([^/\\\u0000-\u001f\u007f-\u009f\u2028\u2029][^\u0000-\u001f\u007f-\u009f\u2028\u2029]*)?$"
_PRINTABLE = r"^[^\u0000-\u001f\u007f-\u009f]*$"
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
    fields.ReturnPath: {"type": "string"},
    marshmallow.fields.Dict: {"type": "object", "additionalProperties": {"type": "string"}},
}
TAGS = {
    "balance": "Balance",
    "usage": "Usage",
    "check": "Checks and holds",
    "holds": "Checks and holds",
    "ledger": "Ledger and statements",
    "statement": "Ledger and statements",
    "tokens": "Tokens",
    "plans": "Buying",
    "stripe": "Buying",
    "purchases": "Buying",
    "subscription": "Buying",
    "invoices": "Buying",
    "controls": "Controls and alerts",
    "alerts": "Controls and alerts",
    "accounts": "Accounts",
    "openapi": "This document",
}
"""The group of operations by the first part of their path; the order is that of the documentation."""
_GLOSSARY = {
    "account": "The account's id, or your external id of it. Needed with a service token; a token of the account "
    "implies it.",
    "limit": "How many rows to answer at most.",
    "cursor": "The `next_cursor` of the page before.",
    "from": "Only what occurred at this time or later.",
    "to": "Only what occurred before this time.",
    "credits": "Credits, with at most 6 decimals.",
    "operation": "The name of the work.",
    "model": "The model's name.",
    "llm_provider": "Who runs the model.",
    "llm_model": "The model's name; a rate may be for one model only.",
    "prompt_tokens": "Tokens that went in.",
    "completion_tokens": "Tokens that came out.",
    "total_tokens": "All tokens, for the records; nothing is priced by it.",
    "success": "false: the work failed and is free, unless its rate says otherwise.",
    "retry": "true: a repetition that is free, unless its rate says otherwise.",
    "source": "Which part of your product records this.",
    "subject": "The end user on whose behalf the work was done.",
    "properties": "An object of your own, kept as it is.",
    "idempotency_key": "The same as the header Idempotency-Key; send either.",
    "ttl_seconds": "How long the hold lives, from now.",
    "reason": "Why, for the records.",
    "state": "Only holds in this state.",
    "interval": "The length of a bucket. Days are UTC, weeks begin on Monday.",
    "by": "What to divide the sums by.",
    "external_id": "Your own id of the account; it never changes.",
    "name": "A name for people.",
    "email": "The owner's address.",
    "search": "Part of a name, external id or e-mail address.",
    "expires_at": "When it ends; never by default.",
    "ends_at": "When the plan ends; never by default.",
    "tier": "The plan's name in the catalog, or `enterprise`.",
    "included_credits": "The allowance of each period, in place of the plan's.",
    "rates": "Rates of this account alone, before the catalog's: operation or `operation@model` to rate.",
    "scopes": "What the token may do.",
    "cap": "The most the token may spend in a period, in credits.",
    "price": "The price's id at Stripe, as the catalog names it. A fixed pack or a plan needs nothing else.",
    "success_path": "Where the customer goes on to when it is paid: a path that begins with one `/`, or an address on "
    "a host of `ALLOWED_RETURN_HOSTS`.",
    "cancel_path": "Where the customer goes who pays nothing; in the same form.",
    "return_path": "Where the customer comes back to; in the form of `success_path`.",
    "caps": "At most 100, one for each scope, key and window. An account keeps those the operator has locked.",
    "alert_thresholds": "At what percent of the allowance to be told; the catalog's by default, none for never.",
    "overage": "Usage beyond all credits, paid for on the next invoice.",
    "auto_top_up": "Credits bought with the card on file when few are left; off after four failures in a row.",
    "records": "1 to 1,000 records, each as in `POST /usage` with a key of its own.",
}
"""What a field means wherever its schema does not say so itself."""
_KEY: dict[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Makes a repetition harmless: the same key and request get the stored answer.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
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
        schema["pattern"] = _PRINTABLE if field.pattern is None else f"^{field.pattern.pattern}$"
    if isinstance(field, fields.ReturnPath) and not settings.current().allowed_return_hosts:
        schema["pattern"] = _PATH
    if isinstance(field, fields.UtcTime) and field.dates:
        schema = {"type": "string", "anyOf": [{"format": "date"}, {"format": "date-time"}], "description": _DATES}
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
    operation_id = _operation_id(method, path)
    described: dict[str, Any] = {
        "summary": operation.summary,
        "operationId": operation_id,
        "tags": [_tag(path)],
        "parameters": list(_parameters(path, operation, plugin)),
        "responses": _responses(operation_id, path, operation),
    }
    if operation.public:
        described["security"] = []
    else:
        described["x-scope"] = operation.scope
        if operation.service_scope is not None:
            described["x-service-scope"] = operation.service_scope
    if operation.body is not None:
        schema = {**plugin.converter.schema2jsonschema(operation.body), "additionalProperties": False}
        schema["properties"] = {name: _explained(name, field) for name, field in schema["properties"].items()}
        if operation.body.needs_any:
            schema["anyOf"] = [_with(name, operation.body.excludes) for name in operation.body.needs_any]
        content = {"schema": schema, "example": examples.BODIES.get(operation_id, {})}
        described["requestBody"] = {"required": operation.body_required, "content": {"application/json": content}}
    return described


def _with(name: str, excludes: Mapping[str, tuple[str, ...]]) -> dict[str, Any]:
    """A body that has this field, and none of those that exclude it."""
    excluded = excludes.get(name, ())
    return {"required": [name]} | ({"properties": {other: {"not": {}} for other in excluded}} if excluded else {})


def _operation_id(method: str, path: str) -> str:
    return method.lower() + "_" + re.sub(r"\W+", "_", path).strip("_")


def _tag(path: str) -> str:
    first = re.split(r"\W", path.removeprefix("/"))[0]
    return TAGS.get(first, first.capitalize())


def _parameters(path: str, operation: Operation, plugin: MarshmallowPlugin) -> Iterator[dict[str, Any]]:
    assert plugin.converter is not None
    for name in re.findall(r"{(\w+)}", path):
        said = _GLOSSARY["account"].partition(".")[0] if name == "ref" else f"The id, such as `{examples.PATHS[name]}`"
        yield {
            "name": name,
            "in": "path",
            "required": True,
            "description": f"{said}.",
            "schema": {"type": "string"},
            "example": examples.PATHS[name],
        }
    if operation.query is not None:
        described = plugin.converter.schema2jsonschema(operation.query)
        for name, schema in described["properties"].items():
            explained = _explained(name, schema)
            said = explained.pop("description", "")
            needed = name in described.get("required", ())
            example = {"example": examples.QUERIES[name]} if needed else {}
            yield {"name": name, "in": "query", "required": needed, "description": said, "schema": explained} | example
    if operation.keyed:
        yield _KEY


def _explained(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with a description: its own, with what the glossary says before a mere note on its form."""
    if name not in _GLOSSARY or schema.get("description", _DATES) != _DATES:
        return schema
    return {**schema, "description": " ".join(filter(None, (_GLOSSARY[name], schema.get("description"))))}


def _responses(operation_id: str, path: str, operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    for status, name in operation.answers.items():
        responses[str(status)] = {"description": _described(status, operation)}
        if name:
            media = "text/csv" if name == CSV else "application/json"
            content: dict[str, Any] = {"schema": {"$ref": f"#/components/schemas/{name}"}}
            example = examples.TABLES.get(operation_id, examples.ANSWERS.get(name))
            if example is not None:
                content["example"] = example
            responses[str(status)]["content"] = {media: content}
    refusals: dict[int, list[str]] = {}
    for code in _codes(path, operation):
        refusals.setdefault(errors.BY_CODE[code].status, []).append(code)
    for status, codes in sorted(refusals.items()):
        responses[str(status)] = {
            "description": ", ".join(codes),
            "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
    return responses


def _described(status: int, operation: Operation) -> str:
    if status == 200 and 201 in operation.answers:
        return "The stored answer of the same request" if operation.keyed else "Was there already"
    return {200: "Done", 201: "Made", 204: "Gone"}[status]


def _codes(path: str, operation: Operation) -> Iterator[str]:
    """What refuses the operation: what follows from how it is declared, and what it names itself."""
    if not operation.public:
        yield from ("unauthenticated", "forbidden", "missing_scope")
    if operation.body is not None:
        yield from ("malformed_json", "bad_request", "payload_too_large", "unsupported_media_type")
    schemas = [schema for schema in (operation.body, operation.query) if schema is not None]
    if schemas:
        yield "validation_error"
    if "{ref}" in path or any("account" in schema.fields for schema in schemas):
        yield "account_not_found"
    if "{" in path:
        yield "not_found"
    if operation.keyed:
        yield "idempotency_conflict"
    if not operation.public and operation.scope != "admin":
        yield "rate_limited"
    yield from operation.refuses
    yield from ("internal_error", "database_busy")
