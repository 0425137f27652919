"""`/api/docs` tells everything, its links lead somewhere, and what it says to paste works."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import pytest
from flask import Flask

import errors
from blueprints import examples, refusals
from models.alert import AlertKind
from services import alerts
from tests import factories, html
from tests.factories import Api


class Anchors(HTMLParser):
    """Every id, every link, and the text below each heading with an id."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.ids: list[str] = []
        self.links: list[str] = []
        self.copied: list[str] = []
        self.below: dict[str, str] = {}
        self.curls: dict[str, str] = {}
        self._heading = ""
        self._curl = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        if "id" in values:
            self.ids.append(values["id"])
            if re.fullmatch(r"h\d", tag):
                self._heading = values["id"]
        if tag == "a":
            self.links.append(values["href"])
        self._curl = values["id"] if tag == "pre" and values.get("id", "").startswith("curl-") else ""
        if "data-copy" in values:
            self.copied.append(values["data-copy"])

    def handle_endtag(self, tag: str) -> None:
        self._curl = ""

    def handle_data(self, data: str) -> None:
        self.below[self._heading] = self.below.get(self._heading, "") + data
        if self._curl:
            name = self._curl.removeprefix("curl-")
            self.curls[name] = self.curls.get(name, "") + data


@pytest.fixture
def text(sqlite_app: Flask) -> str:
    answer = sqlite_app.test_client().get("/api/docs")
    assert answer.status_code == 200 and answer.mimetype == "text/html"
    return answer.text


@pytest.fixture
def page(text: str) -> Anchors:
    return Anchors(text)


@pytest.fixture
def document(sqlite_app: Flask) -> Any:
    return sqlite_app.test_client().get("/api/v1/openapi.json").json


def test_every_code_has_its_section(page: Anchors) -> None:
    assert set(refusals.WORDS) == set(errors.BY_CODE), "each code of errors.py needs its words, and no other"
    for code, kind in errors.BY_CODE.items():
        told = " ".join(page.below[code].split())
        for words in (code, str(kind.status), kind.title, *refusals.WORDS[code]):
            assert words.replace("`", "") in told, code


def test_a_problem_leads_to_its_section(sqlite_app: Flask, page: Anchors) -> None:
    kind = Api(sqlite_app, None).get("/balance").json["type"]
    path, _, anchor = kind.partition("#")
    assert path == "/api/docs" and anchor in page.ids


def test_every_operation_is_told_with_everything_it_takes_and_answers(page: Anchors, document: Any) -> None:
    count = 0
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            told = " ".join(page.below[operation["operationId"]].split())
            for words in (f"{method.upper()} /api/v1{path}", operation["summary"]):
                assert words in told
            body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            named = [parameter["name"] for parameter in operation["parameters"]] + list(body.get("properties", ()))
            assert [name for name in named if name not in told] == [], path
            for status, answer in operation["responses"].items():
                assert status in told
                if status >= "400":
                    assert answer["description"] in told
                elif path != "/openapi.json" and answer.get("content"):
                    [content] = answer["content"].values()
                    first = (
                        content["example"] if isinstance(content["example"], str) else next(iter(content["example"]))
                    )
                    assert first.split("\n")[0] in told
            if "x-scope" in operation:
                assert f"Scope: {operation['x-scope'].partition('|')[0]}" in told
            count += 1
    assert count > 30


def test_limits_and_defaults_are_told(page: Anchors) -> None:
    usage = " ".join(page.below["post_usage"].split())
    assert "Units of the operation. 0 to 1,000,000,000. Default 1." in usage
    assert "1 to 255 characters." in usage
    assert "At least one of credits, operation is needed." in usage
    assert "How many rows to answer at most. 1 to 200. Default 50." in " ".join(page.below["get_ledger"].split())
    assert "of a service token" in page.below["post_usage_records_record_id_void"]
    assert "required" in page.below["post_accounts"]


@pytest.mark.parametrize("section", ["authentication", "amounts", "idempotency", "cursors", "holds", "errors"])
def test_what_all_operations_share_is_explained(page: Anchors, section: str) -> None:
    assert len(page.below[section]) > 250


def test_ids_are_unique_and_every_link_leads_somewhere(sqlite_app: Flask, page: Anchors) -> None:
    assert [name for name, times in Counter(page.ids).items() if times > 1] == []
    assert all(name in page.ids for name in page.copied)
    client = sqlite_app.test_client()
    for link in set(page.links):
        where = urlsplit(link)
        assert not where.netloc, "no link leads to another host"
        if where.path:
            assert client.get(link).status_code in (200, 302), link
        else:
            assert where.fragment in page.ids, link


def test_it_loads_nothing_from_elsewhere_and_has_no_inline_code(text: str) -> None:
    page = html.Page(text)
    assert page.inline == []
    assert all(address.startswith(("/", "#")) for address in page.addresses)


def test_every_page_leads_to_it(sqlite_app: Flask) -> None:
    for path in ("/", "/login", "/nothing"):
        assert 'href="/api/docs"' in sqlite_app.test_client().get(path).text


def test_the_lines_to_paste_work(sqlite_app: Flask, page: Anchors, document: Any) -> None:
    """Each with a token put in, and with the ids of objects that exist."""
    factories.account(sqlite_app, "acme", credits=200_000)
    operator = Api(sqlite_app, factories.service_token(sqlite_app))
    account = operator.get("/accounts/acme").json["id"]
    own = Api(sqlite_app, factories.token(sqlite_app, account, "read", "write", "billing", "tokens"))
    made: dict[str, Callable[[], str]] = {
        examples.PATHS["record_id"]: lambda: str(own.post("/usage", {"credits": 1}).json["id"]),
        examples.PATHS["hold_id"]: lambda: str(own.post("/holds", {"credits": 40}).json["id"]),
        examples.PATHS["alert_id"]: lambda: raised(sqlite_app, account),
        examples.PATHS["token_id"]: lambda: str(own.post("/tokens", {"name": "x", "scopes": ["read"]}).json["id"]),
    }
    for path, methods in sorted(document["paths"].items(), key=lambda entry: entry[0].endswith("close")):
        for method, operation in methods.items():
            line = page.curls[operation["operationId"]]
            for example, make in made.items():
                if example in line:
                    line = line.replace(example, make())
            served = "x-service-scope" in operation or "admin" in operation.get("x-scope", "")
            status = paste(sqlite_app, line, operator.token if served and "tokens" not in path else own.token, method)
            assert status in ((409,) if "/stripe/" in path else (200, 201, 204)), (status, line)
            if path.endswith("suspend"):
                operator.post("/accounts/acme/restore", {"reason": "x"})


def raised(app: Flask, account_id: str) -> str:
    """The id of an alert."""
    with app.app_context():
        alerts.raise_now(account_id, AlertKind.PAYMENT_FAILED, "in_1", {})
        return alerts.listing(account_id, 1)[0].id


def paste(app: Flask, line: str, token: str | None, method: str) -> int:
    """What the shell and curl would make of the line, sent to the app; the status."""
    words = shlex.split(line.replace("\\\n", " ").replace("spw_…", str(token)))
    headers = [words[at + 1].split(": ", 1) for at, word in enumerate(words) if word == "-H"]
    data = words[words.index("-d") + 1] if "-d" in words else None
    said = words[words.index("-X") + 1] if "-X" in words else "GET"
    [address] = [word for word in words if word.startswith("http://127.0.0.1:8000/api/v1/")]
    assert words[0] == "curl" and said == method.upper()
    sent = {name: address if name == "Idempotency-Key" else shown for name, shown in headers}  # each line is new work
    target = urlsplit(address)._replace(scheme="", netloc="").geturl()
    answer = app.test_client(use_cookies=False).open(target, method=said, headers=sent, data=data)
    return answer.status_code
