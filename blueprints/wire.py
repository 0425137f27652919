"""What every API route shares: the order of refusal, bodies and queries, lists, and how errors are rendered."""

from __future__ import annotations

import base64
import binascii
import functools
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from flask import Blueprint, Request, Response, current_app, render_template, request
from flask_wtf.csrf import CSRFError
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

import errors
import metrics
from blueprints import jsonio
from blueprints.fields import StrictSchema
from database import OUTAGES
from errors import SpillwayError, ValidationError
from services import accounts, limits, tokens
from services.tokens import Caller, Presented
from website import Headers, Website, request_id

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

BODY_LIMIT = 1024 * 1024
BATCH_LIMIT = 8 * BODY_LIMIT
_log = logging.getLogger("spillway")


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """What the OpenAPI document says of one route."""

    summary: str
    scope: str | None
    body: StrictSchema | None = None
    query: StrictSchema | None = None
    answers: Mapping[int, str] = field(default_factory=dict)
    keyed: bool = False
    body_required: bool = True
    public: bool = False
    service_scope: str | None = None
    refuses: tuple[str, ...] = ()


def endpoint(
    blueprint: Blueprint,
    method: str,
    rule: str,
    *,
    summary: str,
    scope: str | None,
    answers: Mapping[int, str],
    body: StrictSchema | None = None,
    query: StrictSchema | None = None,
    limit: int = BODY_LIMIT,
    optional_body: bool = False,
    keyed: bool = False,
    hot: bool = False,
    service_scope: str | None = None,
    refuses: tuple[str, ...] = (),
) -> Callable[[Callable[..., Response]], Callable[..., Response]]:
    """Register a view of the API. It is called as `view(caller, [body,] [query,] **path)`.

    The token is judged first, then the scope, then the request. A `hot` view gets the token as it was presented, its
    secret checked, and judges whether it is still good under the lock it takes anyway; only where the request is
    refused is the token read here. The body of a `keyed` view carries the key, whether it came in the body or in the
    header. `service_scope` is what a service token needs in place of `scope`. `answers` maps a status to the name of
    the answer's schema in the document, and `refuses` names the codes that do not follow from the rest (see
    openapi.py).
    """

    def register(view: Callable[..., Response]) -> Callable[..., Response]:
        @functools.wraps(view)
        def run(**path: Any) -> Response:
            headers = request.environ
            presented = tokens.parse(headers.get("HTTP_AUTHORIZATION"), headers.get("HTTP_X_API_KEY"))
            caller: Caller | Presented
            if hot:
                tokens.known(presented)  # strangers do not get their bodies read
                caller = presented
            else:
                caller = _caller(presented, scope, service_scope)
            try:
                arguments = _arguments(body, query, limit, optional_body)
                if keyed:
                    arguments[0]["idempotency_key"] = idempotency_key(arguments[0].get("idempotency_key"))
                _check_path(path)
            except SpillwayError:
                if hot:
                    tokens.authenticate(presented, scope)
                raise
            account_id = _account_of(presented, arguments)
            counted = account_id is None or limits.check(account_id, presented if hot else None, scope)
            answered = view(caller, *arguments, **path)
            if not counted:
                assert account_id is not None
                limits.count_late(account_id)
            return answered

        run.operation = Operation(  # type: ignore[attr-defined]
            summary=summary,
            scope=scope,
            body=body,
            query=query,
            answers=answers,
            keyed=keyed,
            body_required=not optional_body,
            service_scope=service_scope,
            refuses=refuses,
        )
        blueprint.add_url_rule(rule, view_func=run, methods=[method])
        return run

    return register


def _caller(presented: Presented, scope: str | None, service_scope: str | None) -> Caller:
    if service_scope is None:
        return tokens.authenticate(presented, scope)
    caller = tokens.authenticate(presented, None)
    wanted = service_scope if caller.is_service else scope
    if wanted is not None:
        tokens.require_scope(caller, wanted)
    return caller


def _account_of(presented: Presented, arguments: list[dict[str, Any]]) -> str | None:
    """The account whose requests a call is counted among: the token's own, or the one a service token names."""
    identity = tokens.identity(presented.token_id)
    if identity is None or identity.account_id is not None:
        return identity.account_id if identity is not None else None
    ref = next((known["account"] for known in arguments if known.get("account")), None)
    try:
        return accounts.resolve(ref) if ref is not None else None
    except errors.AccountNotFound:  # the view says so, in its order of refusal
        return None


def _check_path(path: Mapping[str, str]) -> None:
    """Raises NotFound for ids with characters that no id has and no database compares."""
    if not all(value.isprintable() for value in path.values()):
        raise errors.NotFound()


def _arguments(
    body: StrictSchema | None, query: StrictSchema | None, limit: int, optional_body: bool
) -> list[dict[str, Any]]:
    arguments = []
    if body is not None:
        arguments.append(body.load_strict(read_json(limit, optional_body, body.judges_text_of)))
    if query is not None:
        arguments.append(query.load_strict(_query()))
    return arguments


def _query() -> dict[str, str]:
    args = request.args
    repeated = [name for name, values in args.lists() if len(values) > 1]
    if repeated:
        raise ValidationError({name: ["Given more than once."] for name in repeated})
    return args.to_dict()


def read_json(limit: int = BODY_LIMIT, optional: bool = False, unchecked: str | None = None) -> dict[str, Any]:
    """The request's JSON object. Raises PayloadTooLarge, UnsupportedMediaType, MalformedJson, ValidationError."""
    raw = read_raw(limit)
    if optional and not raw:
        return {}
    if request.mimetype != "application/json":
        raise errors.UnsupportedMediaType()
    value = jsonio.parse(raw, unchecked)
    if not isinstance(value, dict):
        raise ValidationError({"body": ["Must be an object."]})
    return value


def read_raw(limit: int) -> bytes:
    """The request's body as it came. Raises PayloadTooLarge, BadRequest."""
    length = request.environ.get("CONTENT_LENGTH", "")
    if not (length.isascii() and length.isdecimal()):
        return _read_stream(limit)
    if len(length) > 18 or int(length) > limit:
        raise errors.PayloadTooLarge(f"At most {limit} bytes.")
    try:
        # werkzeug's streams would ask and count the same, in many more steps.
        raw: bytes = request.environ["wsgi.input"].read(int(length))
    except (OSError, ValueError, ParseException):
        raise errors.BadRequest(_CUT_OFF) from None
    if len(raw) < int(length):
        raise errors.BadRequest("The body is shorter than its Content-Length.")
    return raw


_CUT_OFF = "The body could not be read to its end."


def _read_stream(limit: int) -> bytes:
    """A body that comes in chunks, or none. Raises PayloadTooLarge, and BadRequest for broken chunks."""
    request.max_content_length = limit + 1  # in place of the pages' own
    try:
        raw = request.stream.read(limit + 1)
    except RequestEntityTooLarge:
        raise errors.PayloadTooLarge() from None
    except (HTTPException, ParseException):
        raise errors.BadRequest(_CUT_OFF) from None
    if len(raw) > limit:
        raise errors.PayloadTooLarge(f"At most {limit} bytes.")
    return raw


def idempotency_key(body_key: str | None) -> str | None:
    """The key of the header or the body. Raises ValidationError for two different ones or an impossible one."""
    header = request.headers.get("Idempotency-Key")
    if header is None:
        return body_key
    if not 1 <= len(header) <= 255 or not header.isprintable():
        raise ValidationError({"Idempotency-Key": ["Must have 1 to 255 printable characters."]})
    if body_key is not None and body_key != header:
        raise ValidationError({"idempotency_key": ["Differs from the header Idempotency-Key."]})
    return header


class Answer(Response):
    """An answer whose body is there as a whole: nothing of what others need at the end is done for it."""

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(self.status, self.headers.to_wsgi_list())
        return () if environ["REQUEST_METHOD"] == "HEAD" else self.response  # type: ignore[return-value]


def answer(value: Any, status: int = 200, *, replayed: bool = False) -> Response:
    """A JSON answer. A replay is always 200 and says so."""
    response = Answer(jsonio.encode(value), status=200 if replayed else status, mimetype="application/json")
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return response


# Lists


def encode_cursor(*key: Any) -> str:
    """An opaque cursor of a sort key: whole numbers and strings."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None, *types: type) -> list[Any] | None:
    """The sort key. Raises ValidationError for a cursor that is none of ours."""
    if cursor is None:
        return None
    try:
        key = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        typed = len(key) == len(types) and all(type(part) is kind for part, kind in zip(key, types, strict=True))
        if typed and all(_is_sort_key(part) for part in key):
            return list(key)
    except (ValueError, TypeError, binascii.Error, RecursionError):
        pass
    raise ValidationError({"cursor": ["Not a cursor of this list."]})


def _is_sort_key(part: int | str) -> bool:
    """Whether a database can compare with it: as a number also where it stands for microseconds since 1970."""
    return part.isprintable() if isinstance(part, str) else 0 <= part < 2**57


def page(rows: Sequence[Any], limit: int, render: Callable[[Any], Any], cursor: Callable[[Any], str]) -> Response:
    """A list answer of `rows`, which were asked for with `limit + 1`."""
    shown = rows[:limit]
    following = cursor(shown[-1]) if len(rows) > limit else None
    return answer({"data": [render(row) for row in shown], "next_cursor": following})


# Errors


def problem(error: SpillwayError) -> dict[str, Any]:
    """RFC 9457's members, with the stable code."""
    body = {
        "type": f"/api/docs#{error.code}",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
    }
    return body | error.extra


def _render(error: SpillwayError) -> Response:
    if wants_problem():
        metrics.refused(error.code)
        response = Response(jsonio.encode(problem(error)), status=error.status, mimetype="application/problem+json")
    else:
        response = Response(
            render_template("errors.html", error=error, request_id=request_id(request)),
            status=error.status,
            mimetype="text/html",
        )
    retry_after = getattr(error, "retry_after", None)
    if retry_after is not None:
        response.headers["Retry-After"] = str(retry_after)
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def wants_problem() -> bool:
    """The API and the webhooks answer problem+json, pages answer HTML."""
    return request.path.startswith(("/api/", "/webhooks/"))


_HTTP_ERRORS: dict[int, type[SpillwayError]] = {
    400: errors.BadRequest,
    404: errors.NotFound,
    405: errors.MethodNotAllowed,
    413: errors.PayloadTooLarge,
    415: errors.UnsupportedMediaType,
}


def _http_error(error: HTTPException) -> Response:
    if error.code is not None and error.code < 400:
        return error.get_response()  # type: ignore[return-value]
    kind = _HTTP_ERRORS.get(error.code or 500)
    if kind is None:
        kind = type("HttpError", (SpillwayError,), {"status": error.code or 500, "code": _code(error.code)})
        kind.title = error.name
    response = _render(kind())
    if error.code == 405:
        response.headers["Allow"] = ", ".join(getattr(error, "valid_methods", None) or ())
    return response


def _code(status: int | None) -> str:
    return HTTPStatus(status or 500).phrase.lower().replace(" ", "_").replace("-", "_")


def _unexpected(error: Exception) -> Response:
    _log.exception("unexpected error", exc_info=error)
    return _render(SpillwayError())


def _outage(error: Exception) -> Response:
    _log.error("the database can not answer: %s", type(error).__name__)
    return _render(errors.DatabaseBusy())


def _unreadable(_error: ParseException) -> Response:
    return _render(errors.BadRequest())


def _csrf(error: CSRFError) -> Response:
    return _render(errors.BadRequest("The form has expired. Go back, load the page again and send it once more."))


def _send_request_id(request: Request, _status: int, headers: Headers) -> None:
    headers.append(("X-Request-Id", request_id(request)))


def register(app: Website) -> None:
    """Request ids and the one renderer of errors."""
    app.json = jsonio.DecimalProvider(app)
    app.finishers.append(_send_request_id)
    app.register_error_handler(SpillwayError, _render)
    app.register_error_handler(CSRFError, _csrf)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(ParseException, _unreadable)
    for outage in OUTAGES:
        app.register_error_handler(outage, _outage)
    app.register_error_handler(Exception, _unexpected)


def operations() -> list[tuple[str, str, Operation]]:
    """Method, path and description of every API route of the running app."""
    found = []
    for rule in current_app.url_map.iter_rules():
        operation = getattr(current_app.view_functions[rule.endpoint], "operation", None)
        if operation is not None:
            method = next(iter((rule.methods or set()) - {"HEAD", "OPTIONS"}))
            found.append((method, rule.rule, operation))
    return sorted(found, key=lambda entry: (entry[1], entry[0]))
