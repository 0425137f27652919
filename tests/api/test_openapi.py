"""The OpenAPI document tells the truth: about every route and no other, about requests, and about answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
import schemathesis
import simplejson
from flask import Flask

import errors
from blueprints import examples
from tests import factories
from tests.factories import Answer, Api


@pytest.fixture
def document(sqlite_app: Flask) -> Any:
    answer = sqlite_app.test_client().get("/api/v1/openapi.json")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    return answer.json


def operations(document: Any) -> Iterator[tuple[str, str, Any]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


class TestDocument:
    def test_it_is_valid_openapi_3_1(self, document: Any) -> None:
        assert document["openapi"].startswith("3.1.")
        schemathesis.openapi.from_dict(document).validate()
        refs = set(re.findall(r'"\$ref": "([^"]+)"', simplejson.dumps(document)))
        assert refs == {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
        ids = [operation["operationId"] for _, _, operation in operations(document)]
        assert len(set(ids)) == len(ids)

    def test_it_names_every_route_and_no_other(self, sqlite_app: Flask, document: Any) -> None:
        routes = set()
        for rule in sqlite_app.url_map.iter_rules():
            if rule.rule.startswith("/api/v1"):
                path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
                routes |= {(method, path) for method in rule.methods - {"HEAD", "OPTIONS"}}
        base = document["servers"][0]["url"]
        named = {(method, base + path) for method, path, _ in operations(document)}
        assert named == routes

    def test_paths_name_their_parameters_and_every_route_its_security(self, document: Any) -> None:
        schemes = document["components"]["securitySchemes"]
        assert schemes["bearer"] == {"type": "http", "scheme": "bearer"}
        assert schemes["apiKey"] == {"type": "apiKey", "in": "header", "name": "X-Api-Key"}
        assert document["security"] == [{"bearer": []}, {"apiKey": []}]
        open_to_all = []
        for method, path, operation in operations(document):
            in_path = {p["name"] for p in operation["parameters"] if p["in"] == "path"}
            assert in_path == set(re.findall(r"{(\w+)}", path)), path
            if operation.get("security") == []:
                open_to_all.append((method, path))
            else:
                assert operation["x-scope"], path
        assert open_to_all == [("GET", "/openapi.json"), ("GET", "/plans")]

    def test_it_names_every_code_there_is(self, document: Any) -> None:
        named = document["components"]["schemas"]["Problem"]["properties"]["code"]["examples"]
        assert set(named) == set(errors.BY_CODE)
        for _, path, operation in operations(document):
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    codes = response["description"].split(", ")
                    assert {errors.BY_CODE[code].status for code in codes} == {int(status)}, path

    def test_examples_are_requests_and_answers_as_it_says(self, document: Any) -> None:
        shown = 0
        for _, path, operation in operations(document):
            for described in (operation.get("requestBody", {}), *operation["responses"].values()):
                for media_type, content in described.get("content", {}).items():
                    if media_type != "application/problem+json" and path != "/openapi.json":
                        validate(document, content["schema"], content["example"])
                        shown += 1
        assert shown > 30
        schemas = document["components"]["schemas"]
        for name, example in examples.ANSWERS.items():
            validate(document, schemas[name], example)
        assert set(schemas) - set(examples.ANSWERS) == {"Csv", "OpenApi"}

    def test_every_field_and_parameter_is_explained(self, document: Any) -> None:
        for _, path, operation in operations(document):
            for parameter in operation["parameters"]:
                assert parameter["description"], (path, parameter["name"])
            if "requestBody" in operation:
                body = operation["requestBody"]["content"]["application/json"]["schema"]
                for name, schema in body["properties"].items():
                    assert schema.get("description"), (path, name)

    def test_defaults_are_values_one_could_send(self, document: Any) -> None:
        found = []
        for _, path, operation in operations(document):
            schemas = [parameter["schema"] for parameter in operation["parameters"]]
            if "requestBody" in operation:
                body = operation["requestBody"]["content"]["application/json"]["schema"]
                assert body["additionalProperties"] is False
                schemas += body["properties"].values()
            for schema in schemas:
                if "default" in schema:
                    jsonschema_rs.validate(schema, schema["default"])
                    found.append((path, schema["default"]))
        assert ("/usage", 1) in found, "a quantity is 1 by default"
        assert ("/holds", 600) in found
        assert ("/accounts", 50) in found


def validate(document: Any, schema: Any, value: Any) -> None:
    whole = {**schema, "components": document["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)


class Told:
    """An API whose requests and answers are held against the document; it remembers what was called."""

    def __init__(self, document: Any, api: Api) -> None:
        self.document, self.api = document, api
        self.seen: set[tuple[str, str, int]] = set()

    def __call__(self, status: int, method: str, path: str, body: Any = None, *, key: str | None = None) -> Any:
        answer = self.api(method, path, body, key=key)
        assert answer.status == status, answer
        template, operation = self._operation(method, path)
        self.seen.add((method, template, status))
        if body is not None and status < 400:
            self._check(operation["requestBody"]["content"]["application/json"]["schema"], body)
        self._check_answer(operation, answer)
        return answer.json if answer.text.startswith("{") else None

    def _operation(self, method: str, path: str) -> tuple[str, Any]:
        bare = path.partition("?")[0]
        exact = self.document["paths"].get(bare, {})
        if method.lower() in exact:
            return bare, exact[method.lower()]
        for template, methods in self.document["paths"].items():
            if re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), bare) and method.lower() in methods:
                return template, methods[method.lower()]
        raise AssertionError(f"{method} {bare} is not in the document")

    def _check_answer(self, operation: Any, answer: Answer) -> None:
        response = operation["responses"][str(answer.status)]
        if answer.status == 204:
            assert "content" not in response
            assert answer.text == ""
            return
        [(media_type, content)] = response["content"].items()
        if media_type == "text/csv":
            assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
            assert answer.text.splitlines()[0] == content["example"].splitlines()[0]
            return
        assert answer.headers["Content-Type"] == media_type
        self._check(content["schema"], simplejson.loads(answer.text))
        if answer.status >= 400:
            assert answer.code in response["description"]

    def _check(self, schema: Any, value: Any) -> None:
        validate(self.document, schema, value)


def test_requests_and_answers_are_as_it_says(sqlite_app: Flask, document: Any) -> None:
    told = Told(document, Api(sqlite_app, factories.service_token(sqlite_app)))
    acme = {"account": "acme"}
    told(201, "POST", "/accounts", {"external_id": "acme", "name": "Acme", "email": None})
    told(200, "POST", "/accounts", {"external_id": "acme", "name": "Acme", "email": "a@acme.example"})
    told(200, "GET", "/accounts?limit=1&search=acme")
    told(200, "GET", "/accounts/acme")
    told(200, "PATCH", "/accounts/acme", {"name": "Acme Ltd"})
    body = {"credits": "10.5", "reason": "x", "expires_at": "2099-01-01T00:00:00Z"}
    told(201, "POST", "/accounts/acme/grants", body, key="g")
    told(200, "POST", "/accounts/acme/grants", body, key="g")
    terms = {"tier": "enterprise", "included_credits": 50, "rates": {"draw": "per_unit=2"}}
    told(200, "POST", "/accounts/acme/plan", terms)
    told(200, "POST", "/accounts/acme/reset-limit", {"reason": "x"})
    told(200, "POST", "/accounts/acme/suspend", {"reason": "x"})
    told(403, "POST", "/usage", acme | {"credits": 1})
    told(200, "POST", "/accounts/acme/restore", {"reason": "x"})
    told(200, "GET", "/balance?account=acme")

    token = {"name": "x", "scopes": ["read"], "cap": "2.5", "expires_at": "2099-01-01T00:00:00Z"}
    made = told(201, "POST", "/tokens", acme | token)
    told(201, "POST", "/tokens", acme | {"name": "x", "scopes": ["tokens", "billing"]})
    told(200, "GET", "/tokens?account=acme&limit=1")
    told(204, "DELETE", f"/tokens/{made['id']}")

    full = acme | {
        "operation": "draw",
        "quantity": "1.5",
        "llm_provider": "p",
        "llm_model": "m",
        "prompt_tokens": 1,
        "completion_tokens": 2,
        "total_tokens": 3,
        "actual_cost": 0.023,
        "success": True,
        "retry": False,
        "source": "s",
        "subject": "u",
        "properties": {"a": [1.5, None]},
        "enforce": True,
        "idempotency_key": "k",
    }
    record = told(201, "POST", "/usage", full)
    told(200, "POST", "/usage", full)
    told(201, "POST", "/usage", acme | {"credits": 0.000001})
    told(200, "POST", "/usage/batch", {"records": [full, acme | {"credits": 1}, {"credits": 1}, {"credits": -1}]})
    told(200, "GET", "/usage/records?account=acme&from=2020-01-01&operation=draw")
    told(200, "GET", f"/usage/records/{record['id']}")
    told(200, "GET", f"/usage/records/{record['id']}/explain")
    told(200, "GET", "/usage/records.csv?account=acme&from=2020-01-01")
    told(200, "GET", "/usage/stats?account=acme")
    told(200, "GET", "/statement?account=acme")
    told(200, "GET", "/statement.csv?account=acme")
    told(200, "POST", f"/usage/records/{record['id']}/void", {"reason": "x"})
    told(200, "GET", f"/usage/records/{record['id']}")
    told(200, "GET", "/usage/summary?account=acme&interval=hour&by=subject")
    told(200, "POST", "/check", acme | {"credits": 1})
    told(200, "POST", "/check", acme | {"credits": 1000})
    hold = told(201, "POST", "/holds", acme | {"credits": 5, "subject": "u"}, key="h")
    told(200, "POST", "/holds", acme | {"credits": 5, "subject": "u"}, key="h")
    told(200, "GET", f"/holds/{hold['id']}")
    told(200, "POST", f"/holds/{hold['id']}/extend", {"ttl_seconds": 60})
    told(201, "POST", f"/holds/{hold['id']}/capture", {"credits": 2}, key="c")
    told(200, "POST", f"/holds/{hold['id']}/capture", {"credits": 2}, key="c")
    told(409, "POST", f"/holds/{hold['id']}/release")
    other = told(201, "POST", "/holds", acme | {"credits": 5})
    told(200, "POST", f"/holds/{other['id']}/release")
    told(200, "GET", "/holds?account=acme&state=captured")
    told(200, "GET", "/ledger?account=acme&limit=2")
    told(200, "POST", "/accounts/acme/plan", {"tier": "enterprise", "included_credits": 10})
    told(201, "POST", "/usage", acme | {"credits": 7})
    alert = told(200, "GET", "/alerts?account=acme")["data"][0]
    told(200, "POST", f"/alerts/{alert['id']}/dismiss", {})
    controls = told(200, "GET", "/controls?account=acme")
    told(200, "PUT", "/controls", acme | controls)
    told(200, "GET", "/purchases?account=acme&limit=2")
    told(200, "GET", "/subscription?account=acme")
    told(200, "GET", "/invoices?account=acme")
    for path, body in (("customer", {}), ("checkout", {"credits": 5}), ("setup-intent", {}), ("portal", {})):
        told(409, "POST", f"/stripe/{path}", acme | body)  # answered where there is a Stripe: tests/buying

    told(402, "POST", "/usage", acme | {"credits": 1000})
    told(404, "GET", "/usage/records/use_none")
    told(409, "POST", "/usage", full | {"credits": 1})
    told(409, "POST", f"/usage/records/{record['id']}/void", {"reason": "x"})
    told(422, "POST", "/usage", acme | {"credits": 1, "colour": "red"})
    told(200, "POST", "/accounts/acme/close", {"reason": "x"})
    told(200, "GET", "/openapi.json")
    told(200, "GET", "/plans")

    successes = {(method, path, int(status)) for method, path, o in operations(document) for status in o["responses"]}
    successes = {entry for entry in successes if entry[2] < 300 and not entry[1].startswith("/stripe/")}
    assert successes - told.seen == set(), "a route or answer nobody tried"


class TestErrors:
    """Each code of the table with its status, as the problem that RFC 9457 describes."""

    @pytest.fixture
    def api(self, sqlite_app: Flask) -> Api:
        factories.account(sqlite_app, "acme")
        return Api(sqlite_app, factories.service_token(sqlite_app))

    def check(self, answer: Answer, status: int, code: str) -> None:
        assert (answer.status, answer.code) == (status, code), answer
        assert answer.headers["Content-Type"] == "application/problem+json"
        problem = answer.json
        assert problem["type"].endswith(code)
        assert problem["status"] == status
        assert problem["title"]
        assert problem["detail"]
        assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-Id"])

    def test_the_table(self, api: Api) -> None:
        self.check(api.post("/usage", "{"), 400, "malformed_json")
        self.check(Api(api.app, None).get("/balance"), 401, "unauthenticated")
        self.check(api.post("/usage", {"account": "acme", "credits": 101}), 402, "insufficient_credits")
        self.check(api.get("/balance?account=nobody"), 404, "account_not_found")
        self.check(api.get("/nothing"), 404, "not_found")
        self.check(api.get("/holds/hld_none"), 404, "not_found")
        self.check(api.delete("/balance"), 405, "method_not_allowed")
        self.check(api.post("/usage", b" " * (1024 * 1024 + 1)), 413, "payload_too_large")
        text = {"Content-Type": "text/plain"}
        self.check(api.post("/usage", "{}", headers=text), 415, "unsupported_media_type")
        self.check(api.post("/usage", {"account": "acme"}), 422, "validation_error")
        self.check(api.post("/usage", {"account": "acme", "operation": "none"}), 422, "unknown_operation")

    def test_405_names_what_is_allowed(self, api: Api) -> None:
        assert {"GET", "HEAD"} <= set(api.delete("/balance").headers["Allow"].split(", "))

    def test_a_request_id_is_taken_over_when_it_is_a_good_one(self, api: Api) -> None:
        taken = api.get("/balance", headers={"X-Request-Id": "client-1.a_B"})
        assert taken.headers["X-Request-Id"] == "client-1.a_B"
        for bad in ("a b", "x" * 65, "<b>"):
            assert api.get("/balance", headers={"X-Request-Id": bad}).headers["X-Request-Id"] != bad
