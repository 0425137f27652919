"""From an HTTP request to a handler and back: keys, version, faults, idempotency, errors, JSON."""

import base64
import hashlib
import time
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response, current_app, request
from stripe import api_version
from werkzeug.datastructures import MultiDict

from sandbox import faults, params
from sandbox.errors import ApiError
from sandbox.routing import resolve
from sandbox.shapes import to_json
from sandbox.world import World

blueprint = Blueprint("api", __name__)
KEPT_SECONDS = 24 * 3600  # Stripe forgets idempotency keys after a day
PUBLISHABLE = ("/v1/setup_intents/", "/v1/payment_intents/")


@dataclass(frozen=True)
class Kept:
    """The first answer to an idempotency key."""

    digest: str
    status: int
    body: str
    at: int


def world() -> World:
    found = current_app.config["WORLD"]
    assert isinstance(found, World)
    return found


@blueprint.route("/v1/<path:_path>", methods=["GET", "POST", "DELETE"])
def call(_path: str) -> Response:
    """Every call of the API."""
    here = world()
    with here.lock:
        request_id = "req_" + here.word("req", 14)
        fault = faults.take(here, request.method, request.path)
    if fault and not fault.get("after"):
        return _fault(fault, request_id)
    status, body, replayed = _answer(here, request_id)
    if fault:
        return _fault(fault, request_id)
    response = Response(body, status, mimetype="application/json")
    response.headers["Request-Id"] = request_id
    response.headers["Stripe-Version"] = api_version
    if key := request.headers.get("Idempotency-Key"):
        response.headers["Idempotency-Key"] = key
        if replayed:
            response.headers["Idempotent-Replayed"] = "true"
    return response


def _answer(here: World, request_id: str) -> tuple[int, str, bool]:
    with here.lock:
        here.request = {"id": request_id, "idempotency_key": request.headers.get("Idempotency-Key")}
        try:
            _authorize()
            return _run(here)
        except ApiError as refusal:
            return refusal.status, to_json(refusal.body()), False
        finally:
            here.request = {"id": None, "idempotency_key": None}


def _run(here: World) -> tuple[int, str, bool]:
    """Answers of handlers are kept under the idempotency key, refusals of parameters are not: nothing was begun."""
    route, arguments = resolve(request.method, request.path)
    given: MultiDict[str, str] = request.form if request.method == "POST" else request.args
    fields = list(given.items(multi=True)) or list(request.form.items(multi=True))
    key = request.headers.get("Idempotency-Key") if request.method == "POST" else None
    digest = hashlib.sha256(repr((request.path, sorted(fields))).encode()).hexdigest()
    if key and (kept := _kept(here, key, digest)):
        return kept.status, kept.body, True
    tree = params.checked(route.params, params.nested(fields))
    try:
        status, body = 200, to_json(route.handler(here, tree, *arguments))
    except ApiError as refusal:
        status, body = refusal.status, to_json(refusal.body())
    if key:
        here.idempotent[key] = Kept(digest, status, body, here.now())
    return status, body, False


def _kept(here: World, key: str, digest: str) -> Kept | None:
    kept = here.idempotent.get(key)
    if not isinstance(kept, Kept) or here.now() - kept.at > KEPT_SECONDS:
        return None
    if kept.digest != digest:
        raise ApiError(
            "Keys for idempotent requests can only be used with the same parameters they were first used with. Try "
            f"using a key other than '{key}' if you meant to execute a different request.",
            kind="idempotency_error",
        )
    return kept


def _authorize() -> None:
    key = _api_key()
    if not key:
        raise ApiError("You did not provide an API key.", status=401)
    if key.startswith("pk_test_") and request.path.startswith(PUBLISHABLE):
        return
    if not key.startswith(("sk_test_", "rk_test_")):
        raise ApiError(f"Invalid API Key provided: {key[:8]}*** (the sandbox takes test keys)", status=401)
    asked = request.headers.get("Stripe-Version", api_version)
    if asked != api_version:
        raise ApiError(f"Invalid Stripe API version: {asked}. The sandbox speaks {api_version} only.")


def _api_key() -> str:
    """Bearer, or the user name of basic authentication as in Stripe's own curl examples."""
    scheme, _, value = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value).decode().partition(":")[0]
        except ValueError:
            return ""
    return value if scheme.lower() == "bearer" else ""


def _fault(fault: dict[str, Any], request_id: str) -> Response:
    """What was ordered: too late, unreadable, or an error of Stripe's."""
    time.sleep(fault.get("seconds", 0))
    status, body = faults.answer(fault)
    response = Response(body, status, mimetype="application/json")
    response.headers["Request-Id"] = request_id
    if fault["kind"] == "malformed":
        response.headers["Content-Type"] = "text/html"
    return response
