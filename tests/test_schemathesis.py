"""Requests made from the OpenAPI document, good and bad ones: no answer is a fault, and none is undocumented."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import pytest
import schemathesis
from flask import Flask
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import CHECKS
from schemathesis.core import NOT_SET
from schemathesis.engine import from_schema
from schemathesis.engine.events import NonFatalError, ScenarioFinished

from models.alert import AlertKind
from services import alerts
from tests import factories
from tests.factories import Api

pytestmark = pytest.mark.slow

EXAMPLES = 8
"""Of each kind for each operation, token and database."""
CONFORMS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
REJECTS = (*CONFORMS, "negative_data_rejection")


class World:
    """An app with an account, and objects that requests may hit."""

    def __init__(self, app: Flask, holder: str) -> None:
        self.app = app
        self.account = factories.account(app, "acme", credits=1_000_000_000, included=1_000)
        factories.account(app, "spare")
        self.operator = Api(app, factories.service_token(app))
        scopes = ("read", "write", "billing", "tokens")
        self.secret = self.operator.token if holder == "service" else factories.token(app, self.account, *scopes)
        self.is_service = holder == "service"
        self.schema = schemathesis.openapi.from_wsgi("/api/v1/openapi.json", app)
        self.ids: dict[str, list[str]] = {}
        self.renew()

    def renew(self) -> None:
        """Undo what would make all that follows be refused: a suspended account, holds and records that are closed."""
        assert self.operator.post("/accounts/acme/restore", {"reason": "x"}).status == 200
        self.ids = {
            "ref": ["acme", self.account],
            "record_id": [self._made("/usage") for _ in range(2)],
            "hold_id": [self._made("/holds") for _ in range(4)],
            "alert_id": [self._alert() for _ in range(2)],
            "token_id": [self._made("/tokens", name="x", scopes=["read"])],
        }

    def _alert(self) -> str:
        with self.app.app_context():
            alerts.raise_now(self.account, AlertKind.PAYMENT_FAILED, uuid.uuid4().hex, {})
            return alerts.listing(self.account, 1)[0].id

    def _made(self, path: str, **body: Any) -> str:
        answer = self.operator.post(path, {"account": "acme"} | (body or {"credits": 1}))
        assert answer.status == 201, answer
        return str(answer.json["id"])

    def aim(self, case: Any, choice: int) -> None:
        """Make most requests hit something: ids that exist, and the account that a service token has to name."""
        if case.operation.label.endswith("/close"):
            case.path_parameters["ref"] = "spare"  # and not the account that everything else is about
            return
        if choice % 4 == 0:
            return
        for name in case.path_parameters or {}:
            known = self.ids[name]
            case.path_parameters[name] = known[choice % len(known)]
        if isinstance(case.body, dict):
            case.body = self._body(case.body, _fields(case))
            if case.operation.label == "PUT /controls" and choice % 2:
                # What is agreed at random is seldom possible: keys of nothing, overage that no plan here has.
                case.body = {name: told for name, told in case.body.items() if name in ("account", "alert_thresholds")}
        if any(parameter.name == "account" for parameter in case.operation.query):
            case.query = {**(case.query or {}), "account": "acme"}
        if case.operation.label.endswith("/summary"):  # random ranges have too many buckets
            case.query = {name: told for name, told in (case.query or {}).items() if name not in ("from", "to")}

    def _body(self, body: dict[str, Any], fields: Any) -> dict[str, Any]:
        """Random times are too old or too late, and random operations have no rate: both were tried enough."""
        aimed = {name: value for name, value in body.items() if name not in ("account", "occurred_at", "expires_at")}
        if "operation" in aimed:
            aimed.setdefault("credits", 1)
        return {**aimed, "account": "acme"} if "account" in fields and self.is_service else aimed

    def call(self, case: Any, checks: Sequence[str]) -> int:
        """The answer's status, after the checks of these names."""
        if case.operation.label.endswith("/close") and case.path_parameters["ref"] in self.ids["ref"]:
            # Hypothesis draws words of whatever modules are loaded, "acme" too; that account is needed further on.
            case.path_parameters["ref"] = "spare"
        case.headers = {name: shown for name, shown in (case.headers or {}).items() if name.lower() != "x-api-key"}
        headers = {"Authorization": f"Bearer {self.secret}"}
        return int(case.call_and_validate(headers=headers, checks=CHECKS.get_by_names(checks)).status_code)


def _fields(case: Any) -> Any:
    bodies = case.operation.definition.raw.get("requestBody", {}).get("content", {})
    return bodies.get("application/json", {}).get("schema", {}).get("properties", {})


@pytest.fixture(params=["service", "account"])
def world(request: pytest.FixtureRequest, app: Flask) -> World:
    return World(app, request.param)


def test_examples_and_every_boundary_get_documented_answers(world: World) -> None:
    """Schemathesis' own walk: each example, and values at and beyond every limit of every field, one at a time."""
    config = world.schema.config
    config.update(headers={"Authorization": f"Bearer {world.secret}"})
    config.phases.fuzzing.enabled = config.phases.stateful.enabled = False
    config.checks.ignored_auth.enabled = False  # it can not call a WSGI app; test_isolation.py does that walk
    # A service token has to name the account, which no schema can say.
    config.checks.positive_data_acceptance.enabled = not world.is_service
    checked, wrong = 0, []
    for event in from_schema(world.schema).execute():
        if isinstance(event, NonFatalError):
            wrong.append(f"{event.label}: {event.info}")
        if isinstance(event, ScenarioFinished):
            for check in chain.from_iterable(event.recorder.checks.values()):
                checked += 1
                if check.failure_info is not None:
                    wrong.append(
                        f"{event.recorder.label}: {check.failure_info.failure} {check.failure_info.code_sample}"
                    )
    assert wrong == []
    assert checked > 10_000


def bounded(examples: int) -> Any:
    """The same requests in every run; what fails is not made smaller, as the world has changed by then."""
    return settings(
        max_examples=examples,
        database=None,
        deadline=None,
        derandomize=True,
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=list(HealthCheck),
    )


_KNOWN: dict[tuple[str, GenerationMode], list[tuple[Any, int]]] = {}
_PARTS = ("path_parameters", "headers", "cookies", "query", "body", "media_type", "multipart_content_types", "_meta")


def requests(operation: Any, mode: GenerationMode) -> Iterator[tuple[Any, int]]:
    """Requests to an operation, each with a number of its own. They are the same for each token and database, and
    thought of once: that takes several times as long as sending them.
    """
    if (operation.label, mode) not in _KNOWN:
        found: list[tuple[Any, int]] = []

        @bounded(EXAMPLES)
        @given(case=operation.as_strategy(generation_mode=mode))
        def think(case: Any) -> None:
            found.append((case, len(found)))

        think()
        _KNOWN[operation.label, mode] = found
    for case, choice in _KNOWN[operation.label, mode]:
        same = {id(NOT_SET): NOT_SET}
        parts = copy.deepcopy({name: getattr(case, name) for name in _PARTS}, same)
        yield operation.Case(method=case.method, **parts), choice


def test_good_requests_get_documented_answers(world: World) -> None:
    done: dict[str, set[int]] = {}
    for result in world.schema.get_all_operations():
        for case, choice in requests(result.ok(), GenerationMode.POSITIVE):
            world.aim(case, choice)
            done.setdefault(case.operation.label, set()).add(world.call(case, CONFORMS))
        world.renew()
    assert len(done) > 30
    selling = {label for label in done if "/stripe/" in label}
    assert all(409 in done[label] for label in selling), "there is no Stripe here: tests/buying"
    refused = {label for label, statuses in done.items() if min(statuses) >= 300} - selling
    operators = {result.ok().label for result in world.schema.get_all_operations() if _is_operators(result.ok())}
    assert refused == (set() if world.is_service else operators), done


def _is_operators(operation: Any) -> bool:
    return bool(operation.definition.raw.get("x-scope") == "admin" or operation.label.endswith("/void"))


def test_bad_requests_are_refused_as_documented(world: World) -> None:
    tried = 0
    for result in world.schema.get_all_operations():
        operation = result.ok()
        if operation.definition.raw.get("security") == []:
            continue  # what takes nothing can not be asked badly
        for case, _ in requests(operation, GenerationMode.NEGATIVE):
            tried += 1
            world.call(case, REJECTS)
        world.renew()
    assert tried > 200
