"""Serving the sandbox: on a port of its own, in a thread, with as many requests at once as come."""

from __future__ import annotations

import logging
import secrets
import socket
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask
from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from sandbox import wsgi
from sandbox.billing import agenda
from sandbox.clock import Clock
from sandbox.control import Sandbox
from sandbox.world import World

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)
TICK_SECONDS = 1.0


class Quiet(WSGIRequestHandler):
    """Says nothing about requests."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


def whole(app: WSGIApplication) -> WSGIApplication:
    """The same app with every answer in one piece, and done with when the server gets it.

    Werkzeug's server does not close an answer whose connection was reset while it was sent, as a browser does that
    has gone on to another page: the file in it stays open until chance collects it.
    """

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body: Any = app(environ, start_response)
        try:
            return [b"".join(body)]
        finally:
            if hasattr(body, "close"):
                body.close()

    return answer


class Running:
    """A sandbox that is served. `url` is what the `stripe` package takes as its address; `control` steers it."""

    def __init__(self, world: World, app: Flask, server: BaseWSGIServer, ticking: bool) -> None:
        self.world, self.app, self.url = world, app, world.address
        self.control = Sandbox(self.url)
        self._server, self._stopped = server, threading.Event()
        self._threads = [threading.Thread(target=server.serve_forever, args=(0.02,), name="sandbox", daemon=True)]
        if ticking:
            self._threads.append(threading.Thread(target=self._tick, name="sandbox-clock", daemon=True))
        for thread in self._threads:
            thread.start()

    def _tick(self) -> None:
        """What comes due while time passes, or when the other program moves the shared clock."""
        while not self._stopped.wait(TICK_SECONDS):
            try:
                agenda.catch_up(self.world)
            except Exception:
                log.exception("What is due could not be done")

    def stop(self) -> None:
        """Nothing is sent or answered after this."""
        self._stopped.set()
        self.world.courier.stop()
        self._shut_down()
        for thread in self._threads:
            thread.join(10)
        self._server.server_close()

    def _shut_down(self) -> None:
        """The server looks up when somebody comes, sooner than by itself."""
        stopping = threading.Thread(target=self._server.shutdown)
        stopping.start()
        with suppress(OSError):
            socket.create_connection((self._server.host, self._server.port), timeout=1).close()
        stopping.join()

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start(
    clock_file: Path | str | None = None,
    webhook: str | None = None,
    secret: str | None = None,
    *,
    now: int | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    address: str | None = None,
    ticking: bool = False,
    seed: str | None = None,
) -> Running:
    """Serve a new sandbox from a thread and return at once.

    `clock_file`: the time is what stands in it (RFC 3339), for sharing it with another program; `now`: the time stands
    still there (Unix seconds) until it is moved. Without either it runs with the machine's. `webhook`, `secret`: an
    endpoint that gets every event. `port` 0 takes a free one. `address`: what browsers call it, if not by host and
    port. `ticking`: do what comes due while time passes; without it only `control.advance` does. `seed`: two runs with
    the same seed and calls give the same ids.
    """
    clock = Clock(now, Path(clock_file) if clock_file else None)
    world = World(clock, "", seed or secrets.token_hex(8))
    app = wsgi.create(world)
    server = make_server(host, port, whole(app), threaded=True, request_handler=Quiet)
    world.address = (address or f"http://{host}:{server.server_port}").rstrip("/")
    if webhook:
        world.endpoints.append((webhook, secret or "whsec_sandbox"))
        world.reset()
    return Running(world, app, server, ticking)
