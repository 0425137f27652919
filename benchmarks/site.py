"""One kind of database with everything that is measured on it: the server, its books, and the raw floor."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import requests, serving, stores
from benchmarks.books import Books, drive
from benchmarks.figures import BenchmarkError, Figure, figure
from benchmarks.load import Load
from benchmarks.raw_postgresql import Floor
from benchmarks.rows import Row
from benchmarks.serving import Server, child
from settings import ROOT

_CONFIGURATION = ["--config", "gunicorn.conf.py"]
_BARE = ["--config", "benchmarks/bare_gunicorn.py", "benchmarks.bare:app"]
_SYNC = ["--worker-class", "sync", "--threads", "1"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long one measurement takes (seconds), how often all are repeated, and how many accounts there are."""

    warm_up: float
    seconds: float
    rounds: int
    accounts: int


@dataclass(slots=True)
class Site:
    """`servers` are by what a row's `on` says."""

    store: stores.Store
    floor_store: stores.Store
    books: Books
    servers: Mapping[str, Server]
    env: Mapping[str, str]
    folder: Path
    pace: Pace
    floor: Floor | None = None
    memory: dict[str, float] = field(default_factory=dict)
    _runs: int = 0

    def measure(self, row: Row) -> Figure:
        """One row once. Raises BenchmarkError for any wrong answer."""
        self._runs += 1
        if row.on == "raw":
            return self._raw(row)
        if not row.background:
            return self._http(row)
        with self._jobs():
            return self._http(row)

    def _http(self, row: Row) -> Figure:
        load = Load(
            port=self.servers[row.on].port,
            kind=row.load,
            connections=row.clients,
            accounts=self.books.hot if row.hot else self.books.names,
            token=self.books.token if row.on == "server" else "",
            run=f"{row.name}-{self._runs}",
            size=row.size,
            warm_up=self.pace.warm_up,
            seconds=self.pace.seconds,
        )
        outcome = drive(load)
        if row.load in ("usage", "batch"):
            self.books.count(outcome.accepted, row.size)
        return figure(outcome.latencies, outcome.seconds, row.size, outcome.busy)

    def _raw(self, row: Row) -> Figure:
        if self.floor is not None:
            return self.floor.measure(row.load, row.size, row.clients, self.pace.seconds)
        spec = {"path": self.floor_store.address, "mode": row.load, "size": row.size}
        found = child("benchmarks.raw_sqlite", {**spec, "seconds": self.pace.seconds, "run": f"r{self._runs}"})
        return figure(found["latencies"], found["seconds"], row.size)

    @contextmanager
    def _jobs(self) -> Iterator[None]:
        """Have `benchmarks.background` at work during the block. Raises BenchmarkError when it fails."""
        process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.background", str(self.servers["server"].port)],
            cwd=ROOT,
            env={**self.env, "SCHEDULER": "off"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(f"{self.books.token}\n")
            process.stdin.flush()
            if process.stdout.readline() != "ready\n":
                raise BenchmarkError(f"the jobs do not start:\n{process.communicate()[1][-2000:]}")
            yield
            _, complaint = process.communicate(timeout=60)
            if process.returncode:
                raise BenchmarkError(f"the jobs failed:\n{complaint[-2000:]}")
        finally:
            process.kill()
            process.wait()

    def finish(self) -> None:
        """Prove the books: every balance by the API, every number by the ledger. Raises BenchmarkError."""
        server = self.servers["server"]
        self.memory["memory-load"] = server.memory("VmHWM")
        self.books.check(server.port)
        serving.flask(["ledger", "verify"], self.env)


@contextmanager
def open_site(kind: str, pace: Pace, folder: Path, bare: Mapping[str, Server]) -> Iterator[Site]:
    """A migrated database of that kind with accounts in it, served; a copy of it for the raw floor."""
    folder.mkdir()
    instance = folder / "instance"
    instance.mkdir()
    (instance / "catalog.toml").write_text(requests.CATALOG)
    with stores.fresh(kind, folder) as store:
        env = serving.environment(instance, DATABASE_URL=store.url)
        serving.flask(["db", "upgrade"], env)
        printed = serving.flask(
            ["tokens", "create", "--service", "--scopes", "read,write,admin", "--name", "bench"], env
        )
        books = Books(printed.split()[-1], pace.accounts)
        with _serve("set-up", env, folder) as server:
            books.set_up(server.port)
        floor_store = store.copy("floor")
        with _serve("server", env, folder) as server:
            site = Site(store, floor_store, books, {**bare, "server": server}, env, folder, pace)
            if kind == "postgresql":
                site.floor = Floor(floor_store, folder)
            site.memory["memory-idle"] = server.memory("VmRSS")
            yield site


@contextmanager
def _serve(name: str, env: Mapping[str, str], folder: Path) -> Iterator[Server]:
    with serving.gunicorn(name, [*_CONFIGURATION, "app:create_app()"], "/readyz", env, folder) as server:
        yield server


@contextmanager
def bare_servers(folder: Path) -> Iterator[dict[str, Server]]:
    """The bare app under the real settings, and under as many sync workers."""
    env = serving.environment(folder / "bare-instance")
    with (
        serving.gunicorn("bare", _BARE, "/bare", env, folder) as same,
        serving.gunicorn("bare-sync", [*_SYNC, *_BARE], "/bare", env, folder) as sync,
    ):
        yield {"bare": same, "bare-sync": sync}
