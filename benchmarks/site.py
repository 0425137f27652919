"""One kind of database with everything that is measured on it: the server, its books, and the raw floor."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import browser, fill, requests, serving, stores
from benchmarks.books import PERSON, Books, drive
from benchmarks.figures import BenchmarkError, Figure, figure
from benchmarks.load import Load
from benchmarks.raw_postgresql import Floor
from benchmarks.rows import ROWS, Row
from benchmarks.serving import Groups, Server, child
from settings import ROOT

_CONFIGURATION = ["--config", "gunicorn.conf.py"]
_BARE = ["--config", "benchmarks/bare_gunicorn.py", "benchmarks.bare:app"]
_OLD, _OLD_EACH = 5_000, 500
"""Old records of the ordinary books, in all and by account."""
_READERS = {"server": 10, "full": 100}
"""How many owners of old accounts log in."""
FULL_ACCOUNTS = 10_000
_SYNC = ["--worker-class", "sync", "--threads", "1"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long one measurement takes (seconds), how often all are repeated, and how many accounts there are.

    `full` is how many old records the second, full server has in its books (0: there is none); `soak` is how many
    minutes the memory is watched under load.
    """

    warm_up: float
    seconds: float
    rounds: int
    accounts: int
    full: int = 0
    soak: float = 0.0


@dataclass(slots=True)
class Site:
    """`kept`, `servers` and `books` are by what a row's `on` says; `old` are the accounts with old records on `server`.

    `sessions` are the cookies of the owners who are logged in, by what `on` says and account.
    """

    kept: Mapping[str, stores.Store]
    books: Mapping[str, Books]
    old: list[str]
    servers: Mapping[str, Server]
    env: Mapping[str, str]
    folder: Path
    pace: Pace
    floor: Floor | None = None
    memory: dict[str, float] = field(default_factory=dict)
    sessions: dict[str, dict[str, str]] = field(default_factory=dict)
    _runs: int = 0

    def measure(self, row: Row) -> Figure:
        """One row once. Raises BenchmarkError for any wrong answer."""
        self._runs += 1
        if row.on in self.kept:
            self.kept[row.on].recall()
        if row.on == "raw":
            return self._raw(row)
        if not row.background:
            return self._http(row)
        with self._jobs():
            return self._http(row)

    def _http(self, row: Row) -> Figure:
        books, port = self.books.get(row.on), self.servers[row.on].port
        load = Load(
            port=port,
            kind=row.load,
            connections=row.clients,
            accounts=self._accounts(row, books),
            token=books.token if books else "",
            cookies=self.sessions.get(row.on, {}) if row.who == "reader" else {},
            run=f"{row.name}-{self._runs}",
            size=row.size,
            warm_up=self.pace.warm_up,
            seconds=self.pace.seconds,
        )
        spends = books is not None and row.load in ("usage", "batch")
        before = Groups.read(port) if spends else None
        outcome = drive(load)
        found = figure(outcome.latencies, outcome.seconds, row.size, outcome.busy)
        if books is None or before is None:
            return found
        books.count(outcome.accepted, row.size)
        return replace(found, group=Groups.read(port).mean_since(before))

    def _accounts(self, row: Row, books: Books | None) -> list[str]:
        if books is None:
            return [""]
        if row.who == "reader":
            return list(self.sessions[row.on])
        if row.who == "old" and row.on == "server":
            return self.old
        return books.hot if row.who == "hot" else books.names

    def _raw(self, row: Row) -> Figure:
        if self.floor is not None:
            return self.floor.measure(row.load, row.size, row.clients, self.pace.seconds)
        spec = {"path": self.kept["raw"].address, "mode": row.load, "size": row.size}
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
            process.stdin.write(f"{self.books['server'].token}\n")
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

    @property
    def store(self) -> stores.Store:
        return self.kept["server"]

    def soak(self) -> None:
        """Watch the memory of a worker under `single-many` for the pace's minutes."""
        server, sizes = self.servers["server"], []
        row = ROWS[self.store.kind, "single-many"]
        ends = time.monotonic() + self.pace.soak * 60
        while time.monotonic() < ends:
            self.measure(row)
            sizes.append(server.memory("VmRSS"))
        if sizes:
            self.memory["memory-growth"] = round(sizes[-1] / sizes[len(sizes) // 10], 3)

    @property
    def records(self) -> int:
        """Acknowledged records so far."""
        return sum(books.records for books in self.books.values())

    def finish(self) -> None:
        """Prove the books: every balance by the API, every number by the ledger. Raises BenchmarkError."""
        self.memory["memory-load"] = self.servers["server"].memory("VmHWM")
        for name, books in self.books.items():
            books.check(self.servers[name].port)
        serving.flask(["ledger", "verify"], self.env)


@contextmanager
def open_site(kind: str, pace: Pace, folder: Path, bare: Mapping[str, Server], tell: fill.Tell) -> Iterator[Site]:
    """A migrated database of that kind with accounts in it, served; copies of it for the raw floor and full books."""
    folder.mkdir()
    instance = folder / "instance"
    instance.mkdir()
    (instance / "catalog.toml").write_text(requests.CATALOG)
    with ExitStack() as stack:
        store = stack.enter_context(stores.fresh(kind, folder))
        env = serving.environment(instance, DATABASE_URL=store.url)
        books = _set_up(env, pace.accounts, folder)
        floor_store = store.copy("floor")
        if pace.full:
            full_store = store.copy("full")
            names = fill.fill(full_store, books.hot[0], PERSON, FULL_ACCOUNTS, pace.full // FULL_ACCOUNTS, tell)
            full_env = {**env, "DATABASE_URL": full_store.url}
        old = fill.fill(store, books.hot[0], PERSON, _OLD // _OLD_EACH, _OLD_EACH)
        server = stack.enter_context(_serve("server", env, folder))
        kept = {"server": store, "raw": floor_store}
        site = Site(kept, {"server": books}, old, {**bare, "server": server}, env, folder, pace)
        if pace.full:
            site.kept = {**kept, "full": full_store}
            site.servers = {**site.servers, "full": stack.enter_context(_serve("full", full_env, folder))}
            site.books = {**site.books, "full": Books(books.token, names[:: FULL_ACCOUNTS // pace.accounts])}
        if kind == "postgresql":
            site.floor = Floor(floor_store, folder)
        site.memory["memory-idle"] = server.memory("VmRSS")
        tell("balances and log-ins")
        for name, opened in site.books.items():
            opened.open(site.servers[name].port)
            readers = (old if name == "server" else opened.names)[: _READERS[name]]
            site.sessions[name] = {one: browser.log_in(site.servers[name].port, fill.email(one)) for one in readers}
        yield site


def _set_up(env: Mapping[str, str], accounts: int, folder: Path) -> Books:
    """Migrate, make a token, and have a server make the accounts."""
    serving.flask(["db", "upgrade"], env)
    asked = ["tokens", "create", "--service", "--scopes", "read,write,admin", "--name", "bench"]
    token = serving.flask(asked, env).split()[-1]
    books = Books(token, [f"bench-{number:05d}" for number in range(accounts)])
    with _serve("set-up", env, folder) as server:
        books.set_up(server.port)
    return books


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
