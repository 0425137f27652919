"""Nobody reaches what is not theirs: every route, tried by everybody who must not.

Each route of the app has an entry in one of the two tables below. The walk tries the route without a token, with an
expired, a revoked and a narrower one, as an outsider, and at last as somebody who may, which proves that the entry
asks for something real.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
import simplejson
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import delete, update
from werkzeug.test import TestResponse

import clock
import database
from extensions import db
from models.account import Membership, Role
from models.alert import AlertKind
from models.token import Token
from services import alerts, invitations, members
from tests import factories, html
from tests.factories import Answer, Api

ACCOUNT_SCOPES = ("read", "write", "billing", "tokens")
NAME_IT = "Add an entry for {} to {} in tests/test_isolation.py that says who may use the route and what others get."


@dataclass(frozen=True)
class Call:
    """How an API route is used on the victim's account, and by whom.

    `scope` is what it needs, `service_scope` what a service token needs in its place; None: anybody, without a token.
    `names` is where the account goes: "query", "body", or "path" for what has an id of its own. `answers` is the status
    for who may, where it is no success: 409 without Stripe.
    """

    scope: str | None
    target: str = ""
    body: Any = None
    names: str = "query"
    service_scope: str | None = None
    answers: int | None = None


USAGE = {"credits": 1, "operation": "victims-operation", "subject": "victims-subject"}
REASON = {"reason": "victims-reason"}

API: dict[str, Call] = {
    "GET /api/v1/openapi.json": Call(None),
    "GET /api/v1/plans": Call(None),
    "GET /api/v1/balance": Call("read"),
    "POST /api/v1/usage": Call("write", body=USAGE, names="body"),
    "POST /api/v1/usage/batch": Call("write", body={"records": [USAGE]}, names="body"),
    "GET /api/v1/usage/records": Call("read"),
    "GET /api/v1/usage/records/<record_id>": Call("read", "/usage/records/{record}", names="path"),
    "POST /api/v1/usage/records/<record_id>/void": Call(
        "write", "/usage/records/{record}/void", REASON, names="path", service_scope="admin"
    ),
    "GET /api/v1/usage/records/<record_id>/explain": Call("read", "/usage/records/{record}/explain", names="path"),
    "GET /api/v1/usage/records.csv": Call("read"),
    "GET /api/v1/usage/summary": Call("read"),
    "GET /api/v1/usage/stats": Call("read"),
    "POST /api/v1/check": Call("read", body={"credits": 1}, names="body"),
    "POST /api/v1/holds": Call("write", body={"credits": 1, "subject": "victims-subject"}, names="body"),
    "GET /api/v1/holds": Call("read"),
    "GET /api/v1/holds/<hold_id>": Call("read", "/holds/{hold}", names="path"),
    "POST /api/v1/holds/<hold_id>/extend": Call("write", "/holds/{hold}/extend", {"ttl_seconds": 9}, names="path"),
    "POST /api/v1/holds/<hold_id>/capture": Call("write", "/holds/{hold}/capture", {"credits": 1}, names="path"),
    "POST /api/v1/holds/<hold_id>/release": Call("write", "/holds/{hold}/release", {}, names="path"),
    "GET /api/v1/controls": Call("read"),
    "PUT /api/v1/controls": Call(
        "billing", body={"caps": [{"scope": "account", "window": "period", "credits": 1_000_000}]}, names="body"
    ),
    "GET /api/v1/alerts": Call("read"),
    "POST /api/v1/alerts/<alert_id>/dismiss": Call("billing", "/alerts/{alert}/dismiss", {}, names="path"),
    "GET /api/v1/ledger": Call("read"),
    "GET /api/v1/statement": Call("read"),
    "GET /api/v1/statement.csv": Call("read"),
    "GET /api/v1/tokens": Call("tokens"),
    "POST /api/v1/tokens": Call("tokens", body={"name": "victims-token", "scopes": ["read"]}, names="body"),
    "DELETE /api/v1/tokens/<token_id>": Call("tokens", "/tokens/{token}", names="path"),
    "POST /api/v1/stripe/customer": Call("billing", body={}, names="body", answers=409),
    "POST /api/v1/stripe/checkout": Call("billing", body={"credits": 10}, names="body", answers=409),
    "POST /api/v1/stripe/setup-intent": Call("billing", body={}, names="body", answers=409),
    "POST /api/v1/stripe/portal": Call("billing", body={}, names="body", answers=409),
    "POST /api/v1/stripe/subscription": Call("billing", body={"tier": "team"}, names="body", answers=409),
    "GET /api/v1/stripe/subscription/preview": Call("billing", "/stripe/subscription/preview?tier=team", answers=409),
    "DELETE /api/v1/stripe/subscription": Call("billing", answers=409),
    "POST /api/v1/stripe/subscription/resume": Call("billing", body={}, names="body", answers=409),
    "GET /api/v1/purchases": Call("read"),
    "GET /api/v1/subscription": Call("read"),
    "GET /api/v1/invoices": Call("read"),
    "GET /api/v1/accounts": Call("admin"),
    "POST /api/v1/accounts": Call("admin", body={"external_id": "new", "name": "New"}),
    "GET /api/v1/accounts/<ref>": Call("admin", "/accounts/{account}"),
    "PATCH /api/v1/accounts/<ref>": Call("admin", "/accounts/{account}", {"name": "Victim Industries II"}),
    "POST /api/v1/accounts/<ref>/grants": Call("admin", "/accounts/{account}/grants", {"credits": 1, **REASON}),
    "POST /api/v1/accounts/<ref>/plan": Call(
        "admin", "/accounts/{account}/plan", {"tier": "enterprise", "included_credits": 5}
    ),
    "POST /api/v1/accounts/<ref>/reset-limit": Call("admin", "/accounts/{account}/reset-limit", REASON),
    "POST /api/v1/accounts/<ref>/suspend": Call("admin", "/accounts/{account}/suspend", REASON),
    "POST /api/v1/accounts/<ref>/restore": Call("admin", "/accounts/{account}/restore", REASON),
    "POST /api/v1/accounts/<ref>/close": Call("admin", "/accounts/{account}/close", REASON),
}


@dataclass(frozen=True)
class Visit:
    """A page and who may see it: "public", "person" (whoever is logged in), "member" (of an account) or "operator".

    `target` is the victim's, and so is what is `sent`; `foreign` is what an outsider gets there. `gone` is what anybody
    gets at an address whose secret part is wrong.
    """

    access: str
    target: str = ""
    foreign: int | None = None
    gone: int | None = None
    sent: Mapping[str, str] = field(default_factory=dict)


PAGES: dict[str, Visit] = {
    "GET /": Visit("public"),
    "GET /healthz": Visit("public"),
    "GET /readyz": Visit("public"),
    "GET /metrics": Visit("public"),
    "GET /api/docs": Visit("public"),
    "POST /webhooks/stripe": Visit("public", gone=404),
    "GET /pricing": Visit("public"),
    "GET /notifications": Visit("member"),
    "POST /notifications": Visit("member", sent={"kinds": "spike"}),
    "GET /unsubscribe/<signed>": Visit("public", "/unsubscribe/wrong", gone=404),
    "POST /unsubscribe/<signed>": Visit("public", "/unsubscribe/wrong", gone=404),
    "POST /api/unsubscribe/<signed>": Visit("public", "/api/unsubscribe/wrong", gone=404),
    "GET /admin/mails": Visit("operator"),
    "GET /admin/mails/<kind>": Visit("operator", "/admin/mails/spike"),
    "GET /admin/webhooks": Visit("operator"),
    "POST /admin/webhooks": Visit("operator", sent={"url": "https://example.com/"}),
    "POST /admin/webhooks/<endpoint_id>/on": Visit("operator", "/admin/webhooks/whe_none/on"),
    "POST /admin/webhooks/<endpoint_id>/off": Visit("operator", "/admin/webhooks/whe_none/off"),
    "POST /admin/webhooks/<endpoint_id>/test": Visit("operator", "/admin/webhooks/whe_none/test"),
    "POST /admin/webhooks/deliveries/<delivery_id>/again": Visit(
        "operator", "/admin/webhooks/deliveries/dlv_none/again"
    ),
    "GET /admin": Visit("operator"),
    "GET /admin/catalog": Visit("operator"),
    "POST /admin/catalog/sync": Visit("operator"),
    "GET /signup": Visit("public"),
    "POST /signup": Visit("public"),
    "GET /login": Visit("public"),
    "POST /login": Visit("public"),
    "POST /logout": Visit("public"),
    "GET /password/forgot": Visit("public"),
    "POST /password/forgot": Visit("public"),
    "GET /password/reset/<token>": Visit("public", "/password/reset/wrong", gone=404),
    "POST /password/reset/<token>": Visit("public", "/password/reset/wrong", gone=404),
    "GET /verify/<token>": Visit("public", "/verify/wrong", gone=404),
    "GET /setup/<secret>": Visit("public", "/setup/wrong", gone=404),
    "POST /setup/<secret>": Visit("public", "/setup/wrong", gone=404),
    "POST /verify/resend": Visit("person"),
    "GET /settings": Visit("person"),
    "POST /settings": Visit("person"),
    "POST /settings/account": Visit("member"),
    "GET /usage": Visit("member"),
    "GET /usage/records.csv": Visit("member"),
    "GET /alerts": Visit("member"),
    "POST /alerts/<alert_id>/dismiss": Visit("member", "/alerts/{alert}/dismiss", foreign=404),
    "GET /controls": Visit("member"),
    "POST /controls/caps": Visit("member", sent={"scope": "account", "window": "day", "credits": "1000"}),
    "POST /controls/caps/remove": Visit("member", sent={"scope": "account", "window": "day"}),
    "POST /controls/caps/lock": Visit("operator", sent={"scope": "account", "window": "day"}),
    "POST /controls/overage": Visit("member", sent={"off": "1"}),
    "POST /controls/top-up": Visit("member", sent={"off": "1"}),
    "POST /controls/thresholds": Visit("member", sent={"thresholds": "50"}),
    "GET /ledger": Visit("member"),
    "GET /statement": Visit("member"),
    "GET /statement.csv": Visit("member"),
    "GET /usage/<record_id>": Visit("member", "/usage/{record}", foreign=404),
    "GET /buy": Visit("member"),
    "GET /billing": Visit("member"),
    "POST /billing/checkout": Visit("member"),
    "POST /billing/portal": Visit("member"),
    "GET /billing/change": Visit("member"),
    "POST /billing/change": Visit("member"),
    "POST /billing/cancel": Visit("member"),
    "POST /billing/resume": Visit("member"),
    "GET /billing/card": Visit("member"),
    "POST /billing/card": Visit("member"),
    "GET /checkout/return": Visit("public", "/checkout/return?session_id=cs_wrong", gone=404),
    "GET /tokens": Visit("member"),
    "POST /tokens": Visit("member"),
    "POST /tokens/<token_id>/revoke": Visit("member", "/tokens/{token}/revoke", foreign=404),
    "GET /members": Visit("member"),
    "POST /members": Visit("member"),
    "POST /members/leave": Visit("member"),
    "POST /members/<user_id>/role": Visit("member", "/members/{person}/role", foreign=404, sent={"role": "member"}),
    "POST /members/<user_id>/remove": Visit("member", "/members/{person}/remove", foreign=404),
    "POST /members/invitations/<invitation_id>/again": Visit(
        "member", "/members/invitations/{invitation}/again", foreign=404
    ),
    "POST /members/invitations/<invitation_id>/withdraw": Visit(
        "member", "/members/invitations/{invitation}/withdraw", foreign=404
    ),
    "GET /invitations/<secret>": Visit("public", "/invitations/wrong", gone=404),
    "POST /invitations/<secret>": Visit("public", "/invitations/wrong", gone=404),
    "POST /accounts/switch": Visit("person", foreign=404, sent={"account": "{account}"}),
    "GET /accounts/new": Visit("person"),
    "POST /accounts/new": Visit("person"),
    "GET /settings/close": Visit("member"),
    "POST /settings/close": Visit("member", sent={"name": "Victim Industries", "account": "{account}"}),
}


def routes(app: Flask) -> Iterator[str]:
    """Each method and rule of the app but the files that everybody gets."""
    for rule in app.url_map.iter_rules():
        if not rule.endpoint.endswith("static"):
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield f"{method} {rule.rule}"


def unlisted(app: Flask) -> list[str]:
    """What to do about the routes that neither table knows."""
    return [
        NAME_IT.format(route, "API" if " /api/" in route else "PAGES")
        for route in routes(app)
        if route not in API and route not in PAGES
    ]


class Victim:
    """Alice's account with something of everything; formatting with it makes new objects to aim at."""

    def __init__(self, app: Flask, operator: Api, alice: factories.Person) -> None:
        self.app, self.operator, self.owner_id = app, operator, alice.user_id
        self._told, self._asked_of = "", list[list[str]]()
        made = operator.post(
            "/accounts", {"external_id": "victims-id", "name": "Victim Industries", "email": "victim@victim.example"}
        )
        assert made.status == 201, made
        self.account_id = str(made.json["id"])
        factories.join(app, alice.user_id, self.account_id, Role.OWNER)
        operator.post("/accounts/victims-id/plan", {"tier": "enterprise", "included_credits": 1000})
        for kind in ("record", "hold", "token"):
            self[kind]
        self.tenant = Api(app, self._token(list(ACCOUNT_SCOPES))["token"])
        self.marks = ["ictim", self.account_id, self["record"], self["hold"], self["token"]]

    def __getitem__(self, kind: str) -> str:
        if kind in ("account", "person"):
            return self.account_id if kind == "account" else self.owner_id
        if kind == "invitation":
            return self._invitation()
        if kind == "alert":
            return self._alert()
        if kind == "token":
            return str(self._token(["read"])["id"])
        path, body = {"record": ("/usage", USAGE), "hold": ("/holds", {"credits": 1})}[kind]
        return str(self._made(path, body)["id"])

    def _invitation(self) -> str:
        with self.app.app_context():
            guest = f"guest-{len(invitations.waiting(self.account_id))}@victim.example"
            invitations.invite(self.account_id, self.owner_id, guest, Role.MEMBER)
            return next(one.id for one in invitations.waiting(self.account_id) if one.email == guest)

    def _alert(self) -> str:
        occasion = uuid.uuid4().hex
        with self.app.app_context():
            alerts.raise_now(self.account_id, AlertKind.PAYMENT_FAILED, occasion, {"invoice": "victims-invoice"})
            return alerts.listing(self.account_id, 1)[0].id

    def _token(self, scopes: list[str]) -> Any:
        return self._made("/tokens", {"name": "victims-token", "scopes": scopes})

    def _made(self, path: str, body: Any) -> Any:
        answer = self.operator.post(path, {"account": self.account_id, **body})
        assert answer.status == 201, answer
        return answer.json

    def state(self) -> str:
        """Everything an intruder could have changed; asked anew unless not a row of the database is another."""
        if self._rows() != self._asked_of:
            self._told = self._ask()
            self._asked_of = self._rows()
        return self._told

    def _rows(self) -> list[list[str]]:
        with self.app.app_context(), database.snapshot() as conn:
            tables = db.metadata.sorted_tables
            return [sorted(map(repr, conn.exec_driver_sql(f"SELECT * FROM {table.name}"))) for table in tables]

    def _ask(self) -> str:
        paths = ("/balance", "/ledger", "/tokens", "/usage/records", "/holds", "/controls", "/alerts")
        told = [self.operator.get(f"{path}?account={self.account_id}").json for path in paths]
        told[0].pop("as_of")
        told.append(self.operator.get(f"/accounts/{self.account_id}").json)
        for token in told[2]["data"]:
            token.pop("last_used_at")
        with self.app.app_context():
            told.append([(one.email, one.role) for one in members.listing(self.account_id)])
            told.append([(one.email, one.secret_hash) for one in invitations.waiting(self.account_id)])
        return simplejson.dumps(told, use_decimal=True, indent=1)

    def assert_unseen(self, text: str) -> None:
        for mark in self.marks:
            assert mark not in text, f"an outsider reads {mark!r}"


@pytest.fixture
def victim(app: Flask, operator: Api, cast: factories.Cast) -> Victim:
    return Victim(app, operator, cast.alice)


def test_every_route_has_an_entry_and_every_entry_a_route(sqlite_app: Flask) -> None:
    missing = unlisted(sqlite_app)
    assert not missing, "\n".join(missing)
    assert set(API) | set(PAGES) == set(routes(sqlite_app)), "an entry names a route that is no more"


def test_a_new_route_without_an_entry_is_told_apart(sqlite_app: Flask) -> None:
    sqlite_app.add_url_rule("/novelties", "new_page", lambda: "", methods=["GET", "POST"])
    sqlite_app.add_url_rule("/api/v1/novelties", "new_api", lambda: "")
    assert unlisted(sqlite_app) == [
        NAME_IT.format("GET /novelties", "PAGES"),
        NAME_IT.format("POST /novelties", "PAGES"),
        NAME_IT.format("GET /api/v1/novelties", "API"),
    ]


# The API


class Tries:
    """One API route, called on the victim's account."""

    def __init__(self, route: str, call: Call, victim: Victim) -> None:
        self.method, rule = route.split(" ")
        self.call, self.victim = call, victim
        self.path = call.target.format_map(victim) if call.target else rule.removeprefix("/api/v1")

    def by(self, api: Api, account: str | None = None) -> Answer:
        """As the holder of a token, naming an account or none: their own, with data of their own."""
        path, body = self.path, self.call.body
        if account is None and self.call.names == "body":
            body = simplejson.loads(simplejson.dumps(body).replace("victims-", "own-"))
        if account is not None and self.call.names == "query":
            path += f"{'&' if '?' in path else '?'}account={account}"
        elif account is not None and self.call.names == "body":
            body = {**body, "account": account}
        return api(self.method, path, body)


def refused(answer: Answer, status: int, code: str) -> None:
    assert (answer.status, answer.code) == (status, code), answer


def ended_tokens(app: Flask, operator: Api, account_id: str) -> list[Api]:
    """An expired token and a revoked one, of the very account and of the operator."""
    gone = [factories.token(app, account_id, *ACCOUNT_SCOPES)]
    with app.app_context(), database.transaction() as session:
        past = clock.now() - timedelta(milliseconds=1)
        session.execute(update(Token).where(Token.id == f"tok_{gone[0][4:20]}").values(expires_at=past))
    for secret in (factories.token(app, account_id, *ACCOUNT_SCOPES), factories.service_token(app)):
        assert operator.delete(f"/tokens/tok_{secret[4:20]}").status == 204
        gone.append(secret)
    return [Api(app, secret) for secret in gone]


def narrower_tokens(app: Flask, account_id: str, call: Call) -> list[tuple[Api, str]]:
    """Tokens that may do everything but this, of the account and of the operator, and the scope each lacks."""
    assert call.scope is not None
    needed = call.service_scope or call.scope
    own = [scope for scope in ACCOUNT_SCOPES if scope != call.scope]
    service = [scope for scope in (*ACCOUNT_SCOPES, "admin") if scope != needed]
    if needed == "tokens":
        service.remove("admin")  # which stands for it
    return [
        (Api(app, factories.token(app, account_id, *own)), call.scope),
        (Api(app, factories.service_token(app, *service)), needed),
    ]


def test_the_api_answers_only_who_may_ask(
    app: Flask, operator: Api, cast: factories.Cast, victim: Victim, subtests: pytest.Subtests
) -> None:
    outsider = Api(app, factories.token(app, cast.charlie.account_id, *ACCOUNT_SCOPES))
    ended = [Api(app, None), Api(app, "spw_nonsense"), *ended_tokens(app, operator, victim.account_id)]
    unauthenticated = ended[0].get("/balance").json
    for route, call in API.items():
        with subtests.test(route):
            tries = Tries(route, call, victim)
            if call.scope is None:
                assert tries.by(ended[0]).status == 200
                continue
            narrower = narrower_tokens(app, victim.account_id, call)
            before = victim.state()
            for api in ended:
                answer = tries.by(api, victim.account_id)
                assert (answer.status, answer.json) == (401, unauthenticated)
            for api, lacking in narrower:
                answer = tries.by(api, victim.account_id)
                refused(answer, 403, "missing_scope")
                assert answer.json["scope"] == lacking
            assert_outsider(tries, outsider)
            assert victim.state() == before, "somebody who was refused changed something"


def assert_outsider(tries: Tries, outsider: Api) -> None:
    """Another account's token gets what the contract says, and not a byte of what is the victim's."""
    victim, call = tries.victim, tries.call
    foreign = [tries.by(outsider, ref) for ref in (victim.account_id, "victims-id")]
    nobody = tries.by(outsider, "nobody-at-all")
    if call.scope == "admin":
        for answer in (*foreign, nobody):
            refused(answer, 403, "missing_scope")
    elif call.names == "path":
        foreign.append(tries.by(outsider))
        for answer in foreign:
            refused(answer, 404, "not_found")
    else:
        for answer in (*foreign, nobody):
            assert answer.text == nobody.text, "whether the account exists is not told"
            if "results" in answer.text:
                refused_in_batch(answer)
            else:
                refused(answer, 403, "forbidden")
        foreign.append(tries.by(outsider))
        assert foreign[-1].status in (call.answers or 200, call.answers or 201), foreign[-1]
    for answer in foreign:
        victim.assert_unseen(answer.text)


def refused_in_batch(answer: Answer) -> None:
    """In a batch each record is refused by itself."""
    assert answer.status == 200
    assert {(result["status"], result["error"]["code"]) for result in answer.json["results"]} == {(403, "forbidden")}


def test_every_entry_asks_for_something_real(operator: Api, victim: Victim, subtests: pytest.Subtests) -> None:
    """The very calls that others were refused, made by somebody who may."""
    for route, call in API.items():
        with subtests.test(route):
            by = operator if "admin" in (call.scope, call.service_scope) else victim.tenant
            answer = Tries(route, call, victim).by(by)
            assert answer.status in ((call.answers,) if call.answers else (200, 201, 204)), answer


# Pages


def visit(client: FlaskClient, route: str, path: str, victim: Victim) -> TestResponse:
    if route.startswith("GET "):
        return client.get(path)
    sent = {name: value.format_map(victim) for name, value in PAGES[route].sent.items()}
    return client.post(path, data={"csrf_token": html.csrf(client, "/settings"), **sent})


def test_pages_are_shown_only_to_who_may_see_them(
    app: Flask, cast: factories.Cast, victim: Victim, subtests: pytest.Subtests
) -> None:
    for route, page in PAGES.items():
        with subtests.test(route):
            path = (page.target or route.partition(" ")[2]).format_map(victim)
            before = victim.state()
            answer = visit(app.test_client(), route, path, victim)
            victim.assert_unseen(answer.text)
            if page.gone is not None:
                assert answer.status_code == page.gone
            elif page.access == "public":
                assert answer.status_code in (200, 302, 422)
            else:
                assert answer.status_code == 302
                assert answer.headers["Location"].partition("?")[0] == "/login"
            assert victim.state() == before


def test_an_outsider_who_is_logged_in_sees_only_their_own(
    app: Flask, cast: factories.Cast, victim: Victim, subtests: pytest.Subtests
) -> None:
    for route, page in PAGES.items():
        if route == "POST /logout":
            continue
        with subtests.test(route):
            path = (page.target or route.partition(" ")[2]).format_map(victim)
            before = victim.state()
            answer = visit(cast.charlie.client, route, path, victim)
            victim.assert_unseen(answer.text)
            refusal = 403 if page.access == "operator" else page.foreign or page.gone
            assert answer.status_code == (refusal or answer.status_code)
            assert answer.status_code < 500
            assert victim.state() == before


def test_what_an_outsider_sends_changes_their_own_account(app: Flask, cast: factories.Cast, victim: Victim) -> None:
    before = victim.state()
    extra = {"account": victim.account_id, "account_id": victim.account_id, "id": victim.account_id}
    renamed = html.post(cast.charlie.client, "/settings/account", {"name": "Charlie's", **extra}, form="/settings")
    assert renamed.status_code == 302
    made = html.post(
        cast.charlie.client, f"/tokens?account={victim.account_id}", {"name": "t", "scopes": "read", **extra}
    )
    assert made.status_code == 200
    victim.assert_unseen(made.text.replace(f"?account={victim.account_id}", ""))
    assert victim.state() == before
    assert "Charlie&#39;s" in cast.charlie.client.get("/usage").text


def test_every_member_page_shows_the_account_to_its_owner(app: Flask, cast: factories.Cast, victim: Victim) -> None:
    client = cast.alice.client
    assert "Victim Industries" in client.get("/usage").text
    assert "victims-operation" in client.get("/usage").text
    assert "victims-operation" in client.get("/usage/records.csv").text
    assert victim["record"] in client.get("/statement.csv").text
    for path in ("/ledger", "/statement"):
        assert victim["record"] in client.get(path).text
    assert "victims-token" in client.get("/tokens").text
    assert "victims-subject" in client.get(f"/usage/{victim['record']}").text
    assert html.post(client, f"/tokens/{victim['token']}/revoke", form="/tokens").status_code == 302


def test_a_member_sees_the_account_but_not_others_tokens(app: Flask, cast: factories.Cast, victim: Victim) -> None:
    factories.join(app, cast.bob.user_id, victim.account_id, Role.MEMBER)
    client = cast.bob.client
    assert "Victim Industries" in client.get("/usage").text
    assert client.get(f"/usage/{victim['record']}").status_code == 200
    assert "victims-token" not in client.get("/tokens").text
    token_id = victim["token"]
    before = victim.state()
    assert html.post(client, f"/tokens/{token_id}/revoke", form="/tokens").status_code == 404
    assert html.post(client, "/settings/account", {"name": "Bob's"}, form="/settings").status_code == 403
    for scope in ("billing", "tokens", "admin"):
        answer = html.post(client, "/tokens", {"name": "bobs", "scopes": ["read", scope]})
        assert answer.status_code == 422
        assert "spw_" not in answer.text.replace("spw_…", "")
    assert victim.state() == before


def test_whoever_is_removed_loses_access_at_once(app: Flask, cast: factories.Cast, victim: Victim) -> None:
    assert "Victim Industries" in cast.alice.client.get("/usage").text
    with app.app_context(), database.transaction() as session:
        session.execute(delete(Membership).where(Membership.user_id == cast.alice.user_id))
    for path in ("/usage", "/tokens", f"/usage/{victim['record']}"):
        answer = cast.alice.client.get(path)
        assert answer.status_code == 403
        victim.assert_unseen(answer.text)
    settings = cast.alice.client.get("/settings")
    assert settings.status_code == 200
    victim.assert_unseen(settings.text)
