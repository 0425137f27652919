"""The system's Chromium, driven as a person would use it, and what no page may do."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, expect, sync_playwright

from tests import databases, servers
from tests.conftest import BROWSERS

WIDE = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True, "color_scheme": "dark"}
LOOKS = {"wide": WIDE, "phone in the dark": PHONE}
PASSWORD = "correct horse battery"
PATIENCE_MS = 60_000
"""Only a bound, for machines that stall: what is waited for usually is there at once."""
expect.set_options(timeout=PATIENCE_MS)
STICKING_OUT = """width => [...document.querySelectorAll("body *")]
    .filter(element => element.getBoundingClientRect().right > width).map(element => element.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(
            executable_path=next(filter(None, map(shutil.which, BROWSERS)), None), args=["--no-sandbox"]
        )
        yield started
        started.close()


class Visitor:
    """A person at a browser. `complaints`: what the console said, who else was asked, what sticks out."""

    def __init__(self, context: BrowserContext, url: str) -> None:
        self.context, self.url = context, url
        self.complaints: list[str] = []
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", self._said)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self._asked(request.url))

    def _said(self, message: ConsoleMessage) -> None:
        """Warnings, errors and leftovers. Not `info`: the browser's own remarks, as on typing before an autofocus."""
        if message.type != "info":
            self.complaints.append(message.text)

    def _asked(self, url: str) -> None:
        if not url.startswith((self.url, "data:")):
            self.complaints.append(f"asked {url}")

    def go(self, path: str) -> Page:
        self.page.goto(path if path.startswith("http") else self.url + path)
        return self.page

    def press(self, label: str) -> None:
        """Press a button; where that leads to a page, it is there as a whole afterwards."""
        self.page.get_by_role("button", name=label, exact=True).click()
        self.page.wait_for_load_state()

    def is_tidy(self) -> bool:
        """Nothing sticks out at the side of the page, once its stylesheets are there."""
        self.page.wait_for_load_state()
        size = self.page.viewport_size
        assert size is not None
        # Not window.innerWidth: a phone zooms out until everything fits.
        width = int(self.page.evaluate("document.documentElement.scrollWidth"))
        if width > size["width"]:
            self.complaints += [f"{self.page.url} is {width} wide", *self.page.evaluate(STICKING_OUT, size["width"])]
        return width <= size["width"]


@pytest.fixture
def visitor(browser: Browser, server: servers.Server, request: pytest.FixtureRequest) -> Iterator[Visitor]:
    """A new visitor; parametrize indirectly with a key of LOOKS."""
    with visiting(browser, server, **LOOKS[getattr(request, "param", "wide")]) as person:
        yield person


@contextmanager
def visiting(browser: Browser, server: servers.Server, **look: Any) -> Iterator[Visitor]:
    context = browser.new_context(**look)
    person = Visitor(context, server.url)
    yield person
    context.close()
    assert person.complaints == []


@pytest.fixture
def server(tmp_path: Path, sqlite_databases: databases.Sqlite) -> Iterator[servers.Server]:
    """A server on a fresh SQLite file."""
    with (
        sqlite_databases.copy() as url,
        servers.Server(servers.environment(tmp_path, url, SCHEDULER="off", WEB_WORKERS="1"), tmp_path) as running,
    ):
        yield running


def setup_link(server: servers.Server) -> str:
    """The link that the server printed when it started."""
    found = re.search(r"http://\S+/setup/\S+", server.log.read_text())
    assert found is not None, server.tail()
    return found[0]
