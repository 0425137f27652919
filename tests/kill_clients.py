"""The kill test's clients. A request is a function of a number, so that any client can repeat any other's."""

from __future__ import annotations

import http.client
import json
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CLIENTS = 32
HOT = "hot"
OTHERS = 30
_NEIGHBOURS = 12
"""How far back a client looks for another's request to repeat: done, under way or not begun."""
_THINK = 0.1
"""At most so many seconds between two requests of a client: the machine must also start servers."""
_PATIENCE = 120
"""Seconds until a request that always meets a dead or busy server fails the test."""

Body = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """Where the clients send. `tokens` are the operator's and the hot account's own."""

    ports: tuple[int, ...]
    tokens: tuple[str, str]
    stop: Path


@dataclass
class Observed:
    """What one client saw. A key is known by its family's path: `usage/…`, `holds/…`, `grants/…`."""

    answers: list[tuple[str, int, str]] = field(default_factory=list)
    """Key, status, and the answer in a canonical form (empty for a refusal)."""
    abandoned: list[int] = field(default_factory=list)
    """Numbers whose requests were sent without waiting for an answer."""
    numbers: set[int] = field(default_factory=set)
    broken: int = 0
    """Connections that ended without an answer."""
    busy: int = 0
    """Answers 503."""

    def add(self, key: str, status: int, body: Any) -> None:
        self.answers.append((key, status, json.dumps(body, sort_keys=True) if status < 400 else ""))


# The requests


def kind(number: int) -> str:
    return _random("kind", number).choices(["single", "batch", "hold"], [60, 15, 25])[0]


def parts(number: int) -> int:
    """How many usage records the number asks for."""
    return _random("parts", number).randint(5, 25) if kind(number) == "batch" else 1


def usage(number: int, part: int) -> Body:
    """The body of POST /usage, or of one record of a batch."""
    choose = _random("usage", number, part)
    body: Body = {"account": _account(choose), "idempotency_key": f"{number}-{part}"}
    if choose.random() < 0.7:
        body["credits"] = f"{choose.randrange(3_000_000) / 1_000_000:.6f}"
    else:
        body |= {"operation": "document_page", "quantity": choose.randint(1, 4)}
    enforce = choose.choice([None, None, True, False])
    return body if enforce is None else body | {"enforce": enforce}


def hold(number: int) -> Body:
    choose = _random("hold", number)
    ttl = choose.choice([60, 3600, 86_400])
    return {"account": _account(choose), "credits": choose.randint(1, 6), "ttl_seconds": ttl}


def end_of_hold(number: int) -> tuple[str, Body] | None:
    """The action that ends the number's hold and its body; None leaves it to expire."""
    choose = _random("end", number)
    capture = ("capture", {"idempotency_key": f"{number}-capture"})
    whole, other = capture, ("capture", {**capture[1], "credits": choose.choice(["0.5", "2.25", 9])})
    return choose.choices([whole, other, ("release", {}), None], [30, 30, 20, 20])[0]


def _random(*seed: object) -> random.Random:
    return random.Random(repr(seed))


def _account(choose: random.Random) -> str:
    return HOT if choose.random() < 0.5 else f"account-{choose.randrange(OTHERS)}"


# One connection


class Connection:
    """Keeps one connection per server open, and repeats a request until some server has answered it."""

    def __init__(self, target: Target, observed: Observed, choose: random.Random) -> None:
        self._target = target
        self._observed = observed
        self._choose = choose
        self._open: dict[int, http.client.HTTPConnection] = {}

    def close(self) -> None:
        for connection in self._open.values():
            connection.close()

    def settle(self, path: str, body: Body, key: str | None = None) -> tuple[int, Any, bool]:
        """POST until there is an answer other than 503: its status, its body, whether it is called a replay.

        Raises AssertionError for any other answer of 500 and above, and when no server answers for too long.
        """
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            port = self._choose.choice(self._target.ports)
            try:
                answer = self._post(port, path, *self._disguised(body, key))
            except (OSError, http.client.HTTPException):
                self._observed.broken += 1
                self._open.pop(port).close()
                time.sleep(self._choose.uniform(0, 0.1))
                continue
            if answer[0] != 503:
                assert answer[0] < 500, f"{path} {body}: {answer}"
                return answer
            self._observed.busy += 1
            time.sleep(self._choose.uniform(0, 0.1))
        raise AssertionError(f"{path} {body}: no answer in {_PATIENCE} s")

    def _disguised(self, body: Body, key: str | None) -> tuple[Body, dict[str, str]]:
        """The same request in another form: either token, the key in the header or in the body."""
        operator, hot = self._target.tokens
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {operator}"}
        if body.get("account") == HOT and self._choose.random() < 0.5:
            body = {name: value for name, value in body.items() if name != "account"}
            headers["Authorization"] = f"Bearer {hot}"
        key = body.get("idempotency_key", key)
        if key is not None and self._choose.random() < 0.5:
            body = {name: value for name, value in body.items() if name != "idempotency_key"}
            headers["Idempotency-Key"] = key
        elif key is not None:
            body = {**body, "idempotency_key": key}
        return body, headers

    def _post(self, port: int, path: str, body: Body, headers: dict[str, str]) -> tuple[int, Any, bool]:
        if port not in self._open:
            self._open[port] = http.client.HTTPConnection("127.0.0.1", port, timeout=_PATIENCE)
        self._open[port].request("POST", f"/api/v1{path}", json.dumps(body), headers)
        response = self._open[port].getresponse()
        # Numbers stay text, so that answers are compared to the last digit.
        answer = json.loads(response.read(), parse_float=str, parse_int=str)
        return response.status, answer, response.headers.get("Idempotent-Replayed") == "true"

    def abandon(self, number: int) -> None:
        """Send the number's first usage and hang up: as a client does that is itself killed."""
        self._observed.abandoned.append(number)
        port = self._choose.choice(self._target.ports)
        body, headers = self._disguised(usage(number, 0), None)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        with suppress(OSError, http.client.HTTPException):
            connection.request("POST", "/api/v1/usage", json.dumps(body), headers)
            time.sleep(self._choose.uniform(0, 0.005))
        connection.close()


# One client


class Client:
    """Does its own numbers one after another, and now and then another client's."""

    def __init__(self, target: Target, position: int) -> None:
        self.observed = Observed()
        self._target = target
        self._position = position
        self._choose = random.Random(position)
        self.connection = Connection(target, self.observed, self._choose)

    def run(self) -> Observed:
        """Until the target's stop file exists."""
        for number in self._numbers():
            if self._target.stop.exists():
                break
            if kind(number) == "single" and self._choose.random() < 0.03:
                self.connection.abandon(number)
            else:
                self.do(number)
            time.sleep(self._choose.uniform(0, _THINK))
        self.connection.close()
        return self.observed

    def _numbers(self) -> Iterator[int]:
        step = 0
        while True:
            yield step * CLIENTS + self._position
            while self._choose.random() < 0.3:
                back = self._choose.randint(0, min(step, _NEIGHBOURS))
                yield (step - back) * CLIENTS + self._choose.randrange(CLIENTS)
            step += 1

    def do(self, number: int) -> None:
        self.observed.numbers.add(number)
        if kind(number) == "hold":
            self.do_hold(number)
        elif kind(number) == "batch" and self._choose.random() < 0.8:
            self.do_batch([usage(number, part) for part in range(parts(number))])
        else:
            self.do_single(usage(number, self._choose.randrange(parts(number))))

    def do_single(self, body: Body) -> None:
        self._keyed("/usage", body, f"usage/{body['idempotency_key']}")

    def do_batch(self, bodies: list[Body]) -> None:
        """A record of a batch and a single call are the same request under the same key."""
        bodies = self._choose.sample(bodies, len(bodies))
        status, answer, _ = self.connection.settle("/usage/batch", {"records": bodies})
        assert status == 200, answer
        assert len(answer["results"]) == len(bodies), answer
        for body, result in zip(bodies, answer["results"], strict=True):
            code = int(result["status"])
            assert code in (200, 201, 402), result
            assert result.get("replayed", False) is (code == 200), result
            self.observed.add(f"usage/{body['idempotency_key']}", code, result.get("record"))

    def do_hold(self, number: int) -> None:
        held = self._keyed("/holds", hold(number), f"holds/{number}", key=str(number))
        end = end_of_hold(number)
        if held is None or end is None:
            return
        action, body = end
        path = f"/holds/{held['id']}/{action}"
        if action == "capture":
            self._keyed(path, body, f"usage/{body['idempotency_key']}")
        else:
            status, answer, _ = self.connection.settle(path, body)
            assert status == 200, answer
            assert answer["state"] in ("released", "expired"), answer

    def _keyed(self, path: str, body: Body, name: str, key: str | None = None) -> Any:
        status, answer, replayed = self.connection.settle(path, body, key)
        assert status in (200, 201, 402), (path, body, status, answer)
        assert replayed is (status == 200), (path, body, status, answer)
        self.observed.add(name, status, answer)
        return answer if status < 400 else None


def run_clients(target: Target, positions: range) -> list[Observed]:
    """One process's share of the clients, a thread each. Raises what the first of them raised."""
    with ThreadPoolExecutor(len(positions)) as pool:
        return [future.result() for future in [pool.submit(Client(target, position).run) for position in positions]]


# Jobs


def run_jobs() -> None:
    """What the scheduler runs every minute, without pause, until killed: `python -c` calls this."""
    from app import create_app
    from jobs import registry

    app = create_app()
    while True:
        for name in ("renew-allowances", "expire-lots", "expire-holds"):
            registry.run(app, name)
        time.sleep(0.1)
