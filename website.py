"""Our Flask. What it does here it does for every request, and most of them are short: so each step has to be worth it.

Whatever answers a request, a page, the API or an error, `finishers` see the answer when it begins: they count it, log
it and complete its headers. The API's requests skip what Flask and its extensions hang around pages.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response
from flask.globals import request_ctx

import ids

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

Headers = list[tuple[str, str]]
Finisher = Callable[[Request, int, Headers], None]
_ARRIVED = "spillway.arrived"
_REQUEST_ID = "spillway.request_id"
_GOOD_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


def is_api(request: Request) -> bool:
    """Whether it is one of the API's own, which knows tokens only: no cookies, sessions or forms."""
    return request.path.startswith("/api/v1/")


def request_id(request: Request) -> str:
    """The client's own id of the request, or the one we gave it; empty in tests that pass no server by."""
    return str(request.environ.get(_REQUEST_ID, ""))


def seconds(request: Request) -> float:
    """Since the request's arrival."""
    return time.perf_counter() - float(request.environ[_ARRIVED])


class Website(Flask):
    """Flask with `finishers`, called in order with the request, the status and the headers that are about to go out."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.finishers: list[Finisher] = []
        super().__init__(*args, **kwargs)

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ[_ARRIVED] = time.perf_counter()
        shown = environ.get("HTTP_X_REQUEST_ID", "")
        environ[_REQUEST_ID] = shown if _GOOD_ID.fullmatch(shown) else ids.random_hex()
        if environ.get("CONTENT_LENGTH"):
            # The server takes a body that ends before its Content-Length for a whole one: werkzeug shall count.
            environ.pop("wsgi.input_terminated", None)

        def start(status: str, headers: Headers, *rest: Any) -> Callable[[bytes], object]:
            request, number = request_ctx.request, int(status[:3])
            for finish in self.finishers:
                finish(request, number, headers)
            return start_response(status, headers, *rest)

        return super().wsgi_app(environ, start)

    def full_dispatch_request(self) -> Response:
        """For the API no hooks, signals and saved sessions: only the view, and what renders its errors."""
        if not is_api(request_ctx.request):
            return super().full_dispatch_request()
        try:
            return self.make_response(self.dispatch_request())
        except Exception as error:
            return self.make_response(self.handle_user_exception(error))

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Flask asks this of each hook and view of each request; none of ours is a coroutine."""
        return func
