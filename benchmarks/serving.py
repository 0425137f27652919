"""Processes of a run: the real gunicorn, the bare one, and the children that put load on them."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import BenchmarkError
from settings import ROOT

_START = 60.0
_STOP = 45.0
"""Seconds."""
_FOREIGN = re.compile(
    r"STRIPE_|MAIL_URL|CLOCK_FILE|CATALOG_FILE|INSTANCE_PATH|DATABASE_URL|HOST|PORT|PUBLIC_URL|SECRET_KEY"
    r"|SIGNUP_|FREE_MONTHLY_CREDITS"
)


def environment(instance: Path, **settings: str) -> dict[str, str]:
    """The caller's environment (so that WEB_WORKERS and the like count) on an instance of the run's own."""
    kept = {name: value for name, value in os.environ.items() if not _FOREIGN.match(name)}
    return {**kept, "INSTANCE_PATH": str(instance), "PYTHONUNBUFFERED": "1", **settings}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def python(arguments: Sequence[str], env: Mapping[str, str]) -> str:
    """Run one of the project's commands to its end; its output. Raises BenchmarkError when it fails."""
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, env=env, capture_output=True, text=True)
    if done.returncode:
        raise BenchmarkError(f"{' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}{done.stderr}"[-4000:])
    return done.stdout


def flask(arguments: Sequence[str], env: Mapping[str, str]) -> str:
    """`flask --app app …`."""
    return python(["flask", "--app", "app", *arguments], env)


def child(module: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """Run a module of ours as a process that takes JSON and answers JSON. Raises BenchmarkError."""
    with subprocess.Popen(
        [sys.executable, "-m", module],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            out, complaint = process.communicate(json.dumps(spec))
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise BenchmarkError(f"{module} failed:\n{complaint}")
    answer: dict[str, Any] = json.loads(out)
    return answer


@dataclass(frozen=True, slots=True)
class Server:
    """A gunicorn that is up."""

    port: int
    pid: int
    log: Path

    def memory(self, entry: str) -> float:
        """MB of the largest worker: `VmRSS` now, `VmHWM` at most so far. Raises BenchmarkError where none is told."""
        sizes = []
        try:
            workers = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
            for worker in workers:
                match = re.search(rf"^{entry}:\s+([0-9]+) kB", Path(f"/proc/{worker}/status").read_text(), re.M)
                sizes.append(int(match[1]) / 1024 if match else 0.0)
        except OSError:
            pass
        if not sizes:
            raise BenchmarkError("memory can be read on Linux only")
        return round(max(sizes), 1)


@dataclass(frozen=True, slots=True)
class Groups:
    """How often the server has decided usage records in one transaction so far, and how many records in all."""

    transactions: float
    records: float

    @classmethod
    def read(cls, port: int) -> Groups:
        """Raises BenchmarkError where /metrics does not tell."""
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            told = dict(re.findall(r"^spillway_spend_group_size_(count|sum) (\S+)$", answer.read().decode(), re.M))
        return cls(float(told.get("count", 0)), float(told.get("sum", 0)))

    def mean_since(self, before: Groups) -> float | None:
        transactions = self.transactions - before.transactions
        return round((self.records - before.records) / transactions, 2) if transactions else None


@contextmanager
def gunicorn(name: str, arguments: Sequence[str], probe: str, env: Mapping[str, str], folder: Path) -> Iterator[Server]:
    """Serve on a free port until the end of the block. Its output goes to a file, as it does in production."""
    port, log = free_port(), folder / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *arguments],
            cwd=ROOT,
            env={**env, "HOST": "127.0.0.1", "PORT": str(port)},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        _wait_until_up(process, f"http://127.0.0.1:{port}{probe}", log)
        yield Server(port, process.pid, log)
        if process.poll() is not None:
            raise BenchmarkError(f"{name} ended by itself:\n{tail(log)}")
    finally:
        _stop(process)


def _wait_until_up(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + _START
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except urllib.error.HTTPError as error:
            raise BenchmarkError(f"{url} answers {error.code}:\n{tail(log)}") from None
        except OSError:
            time.sleep(0.1)
    raise BenchmarkError(f"{url} does not come up:\n{tail(log)}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Politely, then not; no worker may outlive the run."""
    try:
        process.terminate()
        process.wait(_STOP)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]
