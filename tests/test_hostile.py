"""Ten thousand requests that should never have been sent: no fault of ours, and not a credit out of place."""

from __future__ import annotations

import io
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any
from urllib.parse import quote, unquote_to_bytes

import pytest
import simplejson
from flask import Flask
from sqlalchemy import text
from werkzeug.test import run_wsgi_app

from amounts import MICRO
from extensions import db
from services import verify
from tests import factories, html
from tests.factories import Api
from tests.hostile import NUMBERS, STRINGS, Hostile, Maker, targets
from tests.moments import At

SHARDS = [("sqlite", seed, 1_750) for seed in range(4)] + [("postgresql", seed, 1_000) for seed in range(4, 7)]
"""Database, seed and how many requests: 10,000 in all."""
_TOTALS = text(
    """
    SELECT (SELECT count(*) FROM usage_records) AS records,
           (SELECT count(*) FROM ledger_entries) AS entries,
           (SELECT coalesce(sum(remaining), 0) FROM lots) AS credits,
           (SELECT count(*) FROM lots) AS lots,
           (SELECT count(*) FROM holds) AS holds,
           (SELECT count(*) FROM holds WHERE state = 'open') AS open_holds,
           (SELECT coalesce(sum(amount), 0) FROM holds WHERE state = 'open') AS held,
           (SELECT coalesce(sum(unfunded), 0) FROM accounts) AS unfunded,
           (SELECT count(*) FROM accounts) AS accounts,
           (SELECT count(*) FROM tokens WHERE revoked_at IS NULL) AS tokens
    """
)
Totals = dict[str, int]


def totals(app: Flask) -> Totals:
    with app.app_context(), db.engine.connect() as conn:
        return {name: int(value) for name, value in conn.execute(_TOTALS).mappings().one().items()}


class Answered:
    """What came back for a request, handed to the app as a server would hand it over."""

    def __init__(self, app: Flask, sent: Hostile) -> None:
        self.sent = sent
        chunks, status, self.headers = run_wsgi_app(app.wsgi_app, _environ(sent), buffered=True)
        self.status = int(status.split()[0])
        self.body = b"".join(chunks)

    @property
    def json(self) -> Any:
        return simplejson.loads(self.body, use_decimal=True)

    def check(self) -> None:
        """Whatever was sent, an answer is no fault of ours and has the form of every other."""
        assert self.status < 500, f"{self.status} for {self.sent}\n{self.body[:500]!r}"
        assert len(self.headers["X-Request-Id"]) <= 64
        assert not any("\n" in value or "\r" in value for value in self.headers.values())
        if self.status >= 400 and self.sent.method != "HEAD" and self.sent.path.startswith("/api/v1/"):
            assert self.headers["Content-Type"] == "application/problem+json", self.sent
            problem = self.json
            assert problem["status"] == self.status and problem["code"] and problem["title"], self.sent
            assert len(self.body) < 200_000, "a refusal does not give everything back"


def _environ(sent: Hostile) -> dict[str, Any]:
    """Exactly what gunicorn makes of such a request."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": sent.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(sent.path).decode("latin-1"),
        "QUERY_STRING": sent.query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(sent.data or b""),
        "wsgi.input_terminated": True,
        "wsgi.errors": io.StringIO(),
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "HTTP_HOST": "127.0.0.1:8000",
    }
    for name, value in sent.headers:
        key = name.upper().replace("-", "_")
        environ[key if key == "CONTENT_TYPE" else f"HTTP_{key}"] = value
    if sent.data is not None:
        environ["CONTENT_LENGTH"] = str(len(sent.data))
    return environ


def make(app: Flask, seed: int) -> Maker:
    """Two accounts with credits, holds, records and tokens, and somebody who will abuse them."""
    operator = Api(app, factories.service_token(app))
    accounts = [factories.account(app, name, credits=1_000_000, included=5_000) for name in ("acme", "beta")]
    factories.account(app, "spare")
    ids: dict[str, list[str]] = {"ref": ["acme", "beta", *accounts], "record_id": [], "hold_id": [], "token_id": []}
    for number in range(12):
        name = ("acme", "beta")[number % 2]
        for kind, path, body in (
            ("record_id", "/usage", {"credits": "1.5"}),
            ("hold_id", "/holds", {"credits": 3}),
            ("token_id", "/tokens", {"name": "x", "scopes": ["read"]}),
        ):
            made = operator.post(path, {"account": name, **body})
            assert made.status == 201, made
            ids[kind].append(str(made.json["id"]))
    scopes = ("read", "write", "billing", "tokens")
    own = [factories.token(app, accounts[0], *scopes), factories.token(app, accounts[1], *scopes, cap=50_000_000)]
    document = json.loads(app.test_client().get("/api/v1/openapi.json").text)
    assert operator.token is not None
    return Maker(seed, targets(document), ids, ["acme", "beta", *accounts], [operator.token] * 4 + own)


def changes(answered: Answered) -> dict[str, int] | None:
    """What an accepted request may have changed in the totals; None: it is about more than credits."""
    sent, status = answered.sent, answered.status
    if sent.method in ("GET", "HEAD", "OPTIONS") or status >= 300:
        return {}
    end = sent.path.rpartition("/")[2]
    if end in ("check", "release") or (status == 200 and end in ("usage", "holds", "capture", "grants", "accounts")):
        return {} if end != "release" else None
    if end in ("usage", "capture"):
        return _recorded([answered.json])
    if end == "batch":
        return _recorded([result["record"] for result in answered.json["results"] if result["status"] == 201])
    if end == "holds":
        held = int(answered.json["credits"] * MICRO)
        return {"holds": 1, "open_holds": 1, "held": held}
    return None


def _recorded(records: list[dict[str, Any]]) -> dict[str, int]:
    def total(*kinds: str) -> int:
        return int(sum(Decimal(record["consumed"][kind]) for record in records for kind in kinds) * MICRO)

    return {
        "records": len(records),
        "credits": -total("allowance", "purchased", "granted"),
        "unfunded": total("unfunded"),
    }


def compare(answered: Answered, before: Totals, after: Totals) -> None:
    """Nothing has changed but what the answer tells."""
    told = changes(answered)
    if told is None:
        return
    captured = answered.sent.path.endswith("/capture") and answered.status == 201
    ignored = {"entries"} if told else set()
    ignored |= {"open_holds", "held"} if captured else set()
    expected = {name: before[name] + told.get(name, 0) for name in before if name not in ignored}
    assert expected == {name: after[name] for name in expected}, answered.sent


@pytest.mark.slow
@pytest.mark.parametrize(("database", "seed", "number"), SHARDS)
def test_hostile_requests_are_refused_and_change_nothing(app: Flask, at: At, seed: int, number: int) -> None:
    maker = make(app, seed)
    seen: Counter[int] = Counter()
    before = totals(app)
    for _ in range(number):
        answered = Answered(app, maker.request())
        answered.check()
        seen[answered.status] += 1
        after = totals(app)
        compare(answered, before, after)
        before = after
    with app.app_context():
        assert verify.verify().differences == []
    assert not [status for status in (200, 201, 400, 401, 404, 405, 409, 415, 422) if seen[status] < 3], seen
    assert sum(seen[status] for status in seen if status >= 400) > number / 2, seen


# Pages


@dataclass(frozen=True)
class Form:
    path: str
    fields: tuple[str, ...]


@dataclass
class Browser:
    """Alice's browser, used by somebody who means ill."""

    random: random.Random
    cookie: str
    csrf_token: str
    pages: list[str]
    forms: list[Form]

    def request(self) -> Hostile:
        if self.random.random() < 0.5:
            return Hostile("GET", self.random.choice(self.pages), self._pairs(QUERY, 3), self._headers())
        form = self.random.choice(self.forms)
        fields = self._pairs((*form.fields, "unknown"), 4)
        if self.random.random() < 0.9:
            fields = f"csrf_token={self.csrf_token}&{fields}"
        kind = "application/x-www-form-urlencoded"
        data = fields.encode()
        if self.random.random() < 0.2:
            kind = self.random.choice(["multipart/form-data; boundary=x", "multipart/form-data", "text/plain", ""])
            data = self.random.choice(
                [data, b"--x\r\nContent-Disposition: form-data; name=\xff\r\n\r\n\x00", b"\xff\x00"]
            )
        return Hostile("POST", form.path, "", (*self._headers(), ("Content-Type", kind)), data)

    def _pairs(self, names: Sequence[str], most: int) -> str:
        pairs = []
        for _ in range(self.random.randrange(most + 1)):
            value = self.random.choice([*STRINGS, *NUMBERS, "day", "2026-11-01", "owner", "read"])
            pairs.append(f"{self.random.choice(names)}={quote(value.encode('utf-8', 'surrogatepass'), safe='')}")
        return "&".join([*pairs, *self.random.sample(["%ff=%fe", "%zz", "=", "next=//evil.example", "by=%00"], 1)])

    def _headers(self) -> tuple[tuple[str, str], ...]:
        return (("Cookie", self.cookie),)


QUERY = ("range", "interval", "by", "from", "to", "month", "next", "cursor", "operation", "model", "page", "lang", "x")


def browse(app: Flask, seed: int) -> Browser:
    """What Alice can reach: every page, and every form on them; none that hashes passwords, which takes its time."""
    alice = factories.cast(app).alice
    api = Api(app, factories.token(app, alice.account_id, "read", "write"))
    record = api.post("/usage", {"credits": "1.5", "operation": "page"}).json["id"]
    rules = [rule for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ())]
    paths = [rule.rule.replace("<record_id>", record) for rule in rules if not rule.rule.startswith("/api/v1")]
    pages = [path for path in paths if "<" not in path and path != "/logout"] + [
        "/verify/x",
        "/setup/x",
        "/invitations/x",
    ]
    forms = []
    for path in pages:
        answer = alice.client.get(path, buffered=True)
        if answer.mimetype == "text/html":
            found = [form for form in html.read(answer).forms if form.method == "post"]
            forms += [Form(form.action or path, tuple(form.fields)) for form in found]
    forms = [form for form in forms if form.path != "/logout" and not any("password" in name for name in form.fields)]
    csrf_token = html.csrf(alice.client, "/tokens")
    cookie = alice.client.get_cookie("session")
    assert cookie is not None and len(forms) > 4 and len(pages) > 10
    return Browser(random.Random(seed), f"session={cookie.value}", csrf_token, pages, forms)


@pytest.mark.slow
def test_hostile_visitors_break_no_page(app: Flask) -> None:
    browser = browse(app, 1)
    before = totals(app)
    seen: Counter[int] = Counter()
    for _ in range(400):
        answered = Answered(app, browser.request())
        answered.check()
        seen[answered.status] += 1
        assert "evil.example" not in answered.headers.get("Location", "").partition("?")[0]
    after = totals(app)
    assert {name: after[name] for name in ("records", "held", "unfunded")} == {
        name: before[name] for name in ("records", "held", "unfunded")
    }
    with app.app_context():
        assert verify.verify().differences == []
    assert seen[200] > 50 and seen[422] + seen[400] + seen[302] > 50, seen


@pytest.mark.parametrize("path", ["/api/v1//usage/records", "//login", "/login/", "/usage//x", "//evil.example/login"])
def test_no_path_leads_to_a_redirect_that_names_the_host_asked_for(sqlite_app: Flask, path: str) -> None:
    answered = Answered(sqlite_app, Hostile("GET", path, headers=(("Host", "evil.example"),)))
    answered.check()
    assert "evil.example" not in answered.headers.get("Location", "").partition("?")[0]
