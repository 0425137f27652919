"""Who is in the demo, what they bought and the month of work they did: through pages, the API and the sandbox."""

from __future__ import annotations

import http.cookiejar
import json
import random
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from demo.processes import DemoError
from sandbox.control import Sandbox

PASSWORD = "demo demo demo"
OPERATOR = "olga@demo.example"
_DAYS = 30
_PATIENCE_SECONDS = 30


@dataclass(frozen=True)
class Customer:
    """`buys` are bodies of POST /stripe/checkout; `share` of what they then have is used up, over a month.

    `overage` is the most, in cents, that they agree to pay for more; `top_up` what is bought for them by itself.
    """

    email: str
    name: str
    buys: tuple[Mapping[str, Any], ...] = ()
    share: float = 0.9
    story: str = ""
    overage: int | None = None
    top_up: Mapping[str, Any] | None = None


CUSTOMERS = (
    Customer(
        "acme@demo.example",
        "Acme Vision",
        ({"tier": "team", "interval": "month"}, {"credits": 5000}),
        0.55,
        "subscribed to Team, with credits bought on top",
    ),
    Customer(
        "bolt@demo.example",
        "Bolt Robotics",
        ({"credits": 2000},),
        0.7,
        "free, with credits bought, and more of them by auto top-up",
        top_up={"below": 1000, "credits": 2000, "monthly_ceiling": 10_000},
    ),
    Customer(
        "dana@demo.example",
        "Dana Labs",
        ({"tier": "team", "interval": "month"},),
        1.08,
        "on Team, with usage beyond it up to $20 a month",
        overage=2000,
    ),
    Customer("carol@demo.example", "Carol's Studio", (), 0.93, "free, and nearly out of credits"),
)


class Person:
    """A browser of the demo's own: it keeps cookies and sends forms with their CSRF token."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._opener = urllib.request.build_opener(
            urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()),
        )

    def read(self, path: str) -> str:
        with self._opener.open(self._url + path, timeout=30) as page:
            return str(page.read().decode())

    def send(self, path: str, **fields: str) -> None:
        token = re.search(r'name="csrf_token"[^>]*value="([^"]+)"', self.read(path))
        assert token is not None, f"{path} has no form"
        data = urllib.parse.urlencode({**fields, "csrf_token": token[1]}).encode()
        with self._opener.open(self._url + path, data, timeout=30):
            pass


class Api:
    """The JSON API as the operator's back end sees it."""

    def __init__(self, url: str, token: str) -> None:
        self._url, self._token = f"{url}/api/v1", token

    def __call__(self, path: str, body: Mapping[str, Any] | None = None, method: str | None = None) -> Any:
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise DemoError(f"{path}: {error.code} {error.read().decode()[:500]}") from None


def sign_up(url: str, email: str, name: str) -> None:
    Person(url).send("/signup", email=email, password=PASSWORD, account=name)


def live_a_month(url: str, api: Api, sandbox: Sandbox, customer: Customer) -> None:
    """Sign up, buy and pay, and record the work of a month up to now."""
    sign_up(url, customer.email, customer.name)
    query = urllib.parse.urlencode({"search": customer.email})
    [account] = api(f"/accounts?{query}")["data"]
    for order in customer.buys:
        _buy(api, sandbox, account["id"], order)
    if customer.overage is not None:
        agreed = {"enabled": True, "cap_amount": customer.overage}
        api("/controls", {"account": account["id"], "overage": agreed}, method="PUT")
    _work(api, account["id"], customer)
    if customer.top_up is not None:
        _keep_topped_up(api, sandbox, account["id"], customer.top_up)


def _keep_topped_up(api: Api, sandbox: Sandbox, account: str, wanted: Mapping[str, Any]) -> None:
    """A card on file, and the agreement; the app's job buys within a minute."""
    sandbox.use_card(api("/stripe/customer", {"account": account})["customer"], "4242424242424242")
    api("/controls", {"account": account, "auto_top_up": {"enabled": True, **wanted}}, method="PUT")


def _buy(api: Api, sandbox: Sandbox, account: str, order: Mapping[str, Any]) -> None:
    """Through Checkout, and until the sandbox's webhooks have brought the credits."""
    before = api(f"/balance?account={account}")["available"]
    session = api("/stripe/checkout", {"account": account, **order})["session"]
    sandbox.pay_checkout(session)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while api(f"/balance?account={account}")["available"] <= before:
        if time.monotonic() > deadline:
            raise DemoError("what was bought did not arrive: see app.log and sandbox.log")
        time.sleep(0.2)


def _work(api: Api, account: str, customer: Customer) -> None:
    """Records with the operations of the catalog, spread over a month, until the share is used."""
    chance = random.Random(customer.email)
    left = api(f"/balance?account={account}")["available"] * customer.share
    typical = max(left / 350, 0.4)
    for _ in range(40):
        batch = [next(_records(chance, account, typical)) for _ in range(50)]
        answer = api("/usage/batch", {"records": batch})
        left -= sum(result["record"]["credits"] for result in answer["results"] if "record" in result)
        if left <= typical * 20:
            return


def _records(chance: random.Random, account: str, typical: float) -> Iterator[dict[str, Any]]:
    now = datetime.now(UTC)
    while True:
        day = chance.uniform(0, _DAYS) ** 1.1 % _DAYS
        kind = chance.choices(("chat", "document_page", "image", "embedding"), (50, 30, 10, 10))[0]
        amount = typical * chance.uniform(0.3, 1.7)
        record: dict[str, Any] = {
            "account": account,
            "operation": kind,
            "source": chance.choice(("web", "backend", "mobile")),
            "subject": f"user-{chance.randint(1, 12)}",
            "occurred_at": (now - timedelta(days=day)).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "success": chance.random() > 0.02,
        }
        if kind == "chat":
            tokens = {"prompt_tokens": int(amount * 900), "completion_tokens": int(amount * 350)}
            record |= tokens | {"total_tokens": sum(tokens.values()), "llm_provider": "example"}
            record["llm_model"] = chance.choice(("small-model", "large-model"))
        elif kind == "embedding":
            record |= {"llm_model": "embed-1", "actual_cost": f"{amount * 0.008:.5f}"}
        else:
            record["quantity"] = max(1, round(amount * 2 if kind == "document_page" else amount / 4))
        yield record
