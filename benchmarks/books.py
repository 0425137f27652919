"""The accounts a run spends from: made through the API, and proven exact in the end through the API."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from decimal import Decimal
from typing import Any

from benchmarks import requests
from benchmarks.figures import BenchmarkError
from benchmarks.load import Load, Outcome
from benchmarks.serving import child


def drive(load: Load) -> Outcome:
    """Put the load on the server from a process of its own. Raises BenchmarkError for any wrong answer."""
    outcome = Outcome(**child("benchmarks.load", asdict(load)))
    if outcome.wrong:
        raise BenchmarkError("wrong answers:\n" + "\n".join(outcome.wrong))
    return outcome


class Books:
    """What each account was given and what was acknowledged since."""

    def __init__(self, token: str, names: list[str]) -> None:
        self.token = token
        self.names = names
        self._before: dict[str, Decimal] = {}
        self._accepted: Counter[str] = Counter()

    @property
    def hot(self) -> list[str]:
        return self.names[:1]

    def set_up(self, port: int) -> None:
        """Make the accounts, give them credits, and record a first event on the hot one."""
        for kind in ("create-account", "grant"):
            count = len(self.names)
            drive(Load(port=port, kind=kind, connections=8, accounts=self.names, token=self.token, limit=count))
        drive(
            Load(
                port=port,
                kind="usage",
                connections=1,
                accounts=self.hot,
                token=self.token,
                run="first",
                limit=1,
            )
        )

    def open(self, port: int) -> None:
        """Note what every account has before the first measurement."""
        self._before = {name: available(port, self.token, name) for name in self.names}

    def count(self, accepted: Mapping[str, int], records: int) -> None:
        """Note acknowledged requests of `records` records each."""
        for name, requests_accepted in accepted.items():
            self._accepted[name] += requests_accepted * records

    @property
    def records(self) -> int:
        return self._accepted.total()

    def check(self, port: int) -> None:
        """Every balance must be what it was less what was acknowledged, exactly. Raises BenchmarkError."""
        for name in self.names:
            expected = self._before[name] - self._accepted[name] * requests.PRICE
            found = available(port, self.token, name)
            if found != expected:
                raise BenchmarkError(
                    f"{name}: {found} credits are available, {expected} must be"
                    f" ({self._accepted[name]} records were acknowledged)"
                )


def available(port: int, token: str, account: str) -> Decimal:
    """What GET /balance says the account can spend. Raises BenchmarkError."""
    value: Decimal = get(port, token, f"/api/v1/balance?account={account}")["available"]
    return Decimal(value)


def get(port: int, token: str, path: str) -> dict[str, Any]:
    """One answer of the API, its numbers exact."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise BenchmarkError(f"{path} answers {response.status}: {body[:400]!r}")
        answer: dict[str, Any] = json.loads(body, parse_float=Decimal)
        return answer
    finally:
        connection.close()
