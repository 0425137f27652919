"""The accounts a run spends from: made through the API, and proven exact in the end through the API."""

from __future__ import annotations

import http.client
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from decimal import Decimal
from typing import Self

from benchmarks import browser, requests
from benchmarks.figures import BenchmarkError
from benchmarks.load import Load, Outcome
from benchmarks.serving import child


def drive(load: Load) -> Outcome:
    """Put the load on the server from a process of its own. Raises BenchmarkError for any wrong answer."""
    outcome = Outcome(**child("benchmarks.load", asdict(load)))
    if outcome.wrong:
        raise BenchmarkError("wrong answers:\n" + "\n".join(outcome.wrong))
    return outcome


PERSON = "bench@example.com"
"""Whose log-in the owners of old accounts have, but for the e-mail."""


class Books:
    """What each account had and what was acknowledged since."""

    def __init__(self, token: str, names: list[str]) -> None:
        self.token = token
        self.names = names
        self._before: dict[str, Decimal] = {}
        self._accepted: Counter[str] = Counter()

    @property
    def hot(self) -> list[str]:
        return self.names[:1]

    def set_up(self, port: int) -> None:
        """Make the accounts, give them credits, record a first event on the hot one, and have PERSON sign up."""
        browser.sign_up(port, PERSON)
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
        """Note what every account has before the first measurement. Raises BenchmarkError."""
        with Asking(port, self.token) as ask:
            self._before = {name: ask.available(name) for name in self.names}

    def count(self, accepted: Mapping[str, int], records: int) -> None:
        """Note acknowledged requests of `records` records each."""
        for name, requests_accepted in accepted.items():
            self._accepted[name] += requests_accepted * records

    @property
    def records(self) -> int:
        return self._accepted.total()

    def check(self, port: int) -> None:
        """Every balance must be what it was less what was acknowledged, exactly. Raises BenchmarkError."""
        with Asking(port, self.token) as ask:
            for name in self.names:
                expected = self._before[name] - self._accepted[name] * requests.PRICE
                found = ask.available(name)
                if found != expected:
                    raise BenchmarkError(
                        f"{name}: {found} credits are available, {expected} must be"
                        f" ({self._accepted[name]} records were acknowledged)"
                    )


class Asking:
    """One connection for questions in between."""

    def __init__(self, port: int, token: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._headers = {"Authorization": f"Bearer {token}"}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._connection.close()

    def available(self, account: str) -> Decimal:
        """What GET /balance says the account can spend. Raises BenchmarkError."""
        self._connection.request("GET", f"/api/v1/balance?account={account}", headers=self._headers)
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise BenchmarkError(f"the balance of {account} is {response.status}: {body[:400]!r}")
        return Decimal(json.loads(body, parse_float=Decimal)["available"])
