"""The two servers of the demo: their environment, start and end."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from settings import ROOT, Settings

LOOPBACK = "127.0.0.1"
WEBHOOK_SECRET = "whsec_demo"
_START_SECONDS = 60
_STOP_SECONDS = 30


class DemoError(RuntimeError):
    """Why the demo can not go on, for whoever started it."""


def environment(folder: Path, port: int, sandbox: str) -> dict[str, str]:
    """The caller's environment without any setting of an installation: neither its data nor its keys."""
    names = {field.name.upper() for field in dataclasses.fields(Settings)}
    foreign = {*names, *(f"{name}_FILE" for name in names)}
    kept = {name: value for name, value in os.environ.items() if name not in foreign}
    return kept | {
        "INSTANCE_PATH": str(folder),
        "HOST": LOOPBACK,
        "PORT": str(port),
        "WEB_WORKERS": "1",
        "STRIPE_SECRET_KEY": "sk_test_demo",
        "STRIPE_PUBLISHABLE_KEY": "pk_test_demo",
        "STRIPE_WEBHOOK_SECRET": WEBHOOK_SECRET,
        "STRIPE_API_BASE": sandbox,
        "PYTHONUNBUFFERED": "1",
    }


def free_port(wanted: int) -> int:
    """The wanted port, or another one where somebody listens on it."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise DemoError("no port is free")


def flask(environ: Mapping[str, str], *arguments: str) -> str:
    """Run one of the commands to its end; what it printed. Raises DemoError."""
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "app", *arguments],
        cwd=ROOT,
        env=dict(environ),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DemoError(
            f"flask {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"[-3000:]
        )
    return done.stdout


class Server:
    """One process with its log in the demo's folder; `url` answers once it is up."""

    def __init__(self, name: str, arguments: list[str], url: str, log: Path, environ: Mapping[str, str]) -> None:
        self.name, self.url, self._log = name, url, log
        with log.open("wb") as out:
            # A session of its own: Ctrl-C reaches the demo, which then stops both in order.
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=ROOT,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_for(self, path: str) -> None:
        """Raises DemoError with the end of the log when it does not come up."""
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers(path):
            if not self.is_running or time.monotonic() > deadline:
                raise DemoError(f"{self.name} did not start:\n{self.tail()}")
            time.sleep(0.1)

    def _answers(self, path: str) -> bool:
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def tail(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()[-15:]
        return "\n".join(re.sub(r"\s+", " ", line)[:300] for line in lines)

    def stop(self) -> None:
        """SIGTERM and wait; harmless when it has ended."""
        if self.is_running:
            self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def start_sandbox(folder: Path, port: int, app: str) -> Server:
    url = f"http://{LOOPBACK}:{port}"
    arguments = ["-m", "sandbox", "--host", LOOPBACK, "--port", str(port)]
    arguments += ["--webhook", f"{app}/webhooks/stripe", "--secret", WEBHOOK_SECRET]
    return Server("the sandbox", arguments, url, folder / "sandbox.log", {**os.environ, "PYTHONUNBUFFERED": "1"})


def start_app(folder: Path, environ: Mapping[str, str]) -> Server:
    url = f"http://{LOOPBACK}:{environ['PORT']}"
    arguments = ["-m", "gunicorn", "--config", "gunicorn.conf.py", "app:create_app()"]
    return Server("the app", arguments, url, folder / "app.log", environ)
