"""The real server, started as an operator would, with nothing but the environment. It can be killed."""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from app import create_app
from extensions import db
from settings import ROOT, Settings

_PORTS = range(15_000, 32_000)
"""Below the ports that outgoing connections get: a client of a dead port could else connect to itself."""
_START_SECONDS = 90
_STOP_SECONDS = 60
_LOG_TAIL = 4_000


def environment(folder: Path, database_url: str, **changes: str) -> dict[str, str]:
    """What a server or command of an installation is started with; `changes` are settings by name."""
    return {
        "PATH": os.environ.get("PATH", ""),
        "HOME": str(folder),
        "INSTANCE_PATH": str(folder / "instance"),
        "DATABASE_URL": database_url,
        "SECRET_KEY": "a key for tests only, of no value",
        "HOST": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",
        **changes,
    }


def command(environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `flask …` to its end, beside whatever servers run; its exit code is the caller's to judge."""
    return subprocess.run(
        [sys.executable, "-m", "flask", "--app", "app", *arguments],
        cwd=ROOT,
        env=dict(environ),
        capture_output=True,
        text=True,
        timeout=_START_SECONDS,
        check=False,
    )


def quick_command(environ: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, many times as fast: for what prepares a test, or looks at its end."""
    app = create_app(Settings.from_env(environ))
    done = app.test_cli_runner().invoke(args=arguments)
    with app.app_context():
        db.engine.dispose()
    return subprocess.CompletedProcess(arguments, done.exit_code, done.stdout, done.stderr)


def service_token(environ: Mapping[str, str]) -> str:
    """The secret of a new service token with every scope."""
    scopes = "read,write,billing,admin"
    made = quick_command(environ, "tokens", "create", "--service", "--scopes", scopes, "--name", "t")
    return made.stdout.split()[-1]


def free_port() -> int:
    """A port nobody listens on now."""
    for port in random.SystemRandom().sample(_PORTS, 100):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise RuntimeError("no free port was found")


class Server:
    """One gunicorn: a master and its workers, a process group of its own, on one port for all its lives.

    As a context manager it is ready inside and gone afterwards. Its log, in `folder`, outlives restarts.
    """

    def __init__(self, environ: Mapping[str, str], folder: Path, config: str | Path = "gunicorn.conf.py") -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / f"server-{self.port}.log"
        self.environ = {**environ, "PORT": str(self.port)}
        self._config = str(config)
        self._process: subprocess.Popen[bytes] | None = None
        self._readiness = "never asked"

    def __enter__(self) -> Server:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Returns once /readyz answers 200. Raises RuntimeError with the end of the log if it never does."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", "--config", self._config, "app:create_app()"],
                cwd=ROOT,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_SECONDS
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start, /readyz: {self._readiness}\n{self.tail()}")
            time.sleep(0.05)

    def is_ready(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            self._readiness = response.read().decode()
        except (OSError, http.client.HTTPException) as error:
            self._readiness = repr(error)
            return False
        else:
            return response.status == 200
        finally:
            connection.close()

    def tail(self) -> str:
        """The end of the log."""
        return self.log.read_bytes()[-_LOG_TAIL:].decode(errors="replace")

    def workers(self) -> list[int]:
        """The ids of the master's children (Linux only)."""
        if self._process is None:
            return []
        pid = self._process.pid
        try:
            return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        except OSError:
            return []

    def kill_worker(self) -> bool:
        """SIGKILL one worker, any; the master starts another. False when there was none to kill."""
        workers = self.workers()
        if not workers:
            return False
        with suppress(ProcessLookupError):
            os.kill(random.choice(workers), signal.SIGKILL)
        return True

    def kill(self) -> None:
        """SIGKILL master and workers at once, as a power cut would; harmless when nothing runs."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_STOP_SECONDS)
        self._process = None
        self._wait_closed()

    def stop(self) -> int:
        """SIGTERM, wait for the clean end; the master's exit code."""
        assert self._process is not None, "not running"
        self._process.terminate()
        code = self._process.wait(_STOP_SECONDS)
        self._process = None
        return code

    def _wait_closed(self) -> None:
        """The master is gone before its orphaned workers; the port is free after the last of them."""
        deadline = time.monotonic() + _STOP_SECONDS
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) != 0:
                    return
            time.sleep(0.01)
        raise RuntimeError(f"port {self.port} is still open after a kill")
