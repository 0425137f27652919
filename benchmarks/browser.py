"""What a browser does to get a session: sign up and log in by the real forms, CSRF tokens included."""

from __future__ import annotations

import http.client
import re
from http.cookies import SimpleCookie
from typing import Self
from urllib.parse import urlencode

from benchmarks.figures import BenchmarkError

PASSWORD = "correct horse battery staple"
"""Of people who exist for one run."""
_TOKEN = re.compile(r'name="csrf_token"[^>]*value="([^"]+)"')


class Browser:
    """One connection that keeps cookies and follows nothing."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self._cookies: SimpleCookie = SimpleCookie()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._connection.close()

    @property
    def cookie(self) -> str:
        """The value of the Cookie header."""
        return "; ".join(f"{name}={cookie.value}" for name, cookie in self._cookies.items())

    def _ask(self, method: str, path: str, body: str | None = None) -> tuple[int, str]:
        headers = {"Cookie": self.cookie} if self._cookies else {}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        self._connection.request(method, path, body, headers)
        answer = self._connection.getresponse()
        for value in answer.headers.get_all("Set-Cookie", []):
            self._cookies.load(value)
        return answer.status, answer.read().decode()

    def send(self, path: str, fields: dict[str, str]) -> None:
        """Open the page of a form, fill it in and send it. Raises BenchmarkError unless it leads elsewhere."""
        status, page = self._ask("GET", path)
        token = _TOKEN.search(page)
        if token is None:
            raise BenchmarkError(f"{path} shows no form: {status} {page[:400]}")
        status, page = self._ask("POST", path, urlencode({**fields, "csrf_token": token[1]}))
        if status != 302:
            raise BenchmarkError(f"{path} answers {status}: {page[:400]}")


def sign_up(port: int, email: str) -> None:
    """A person with an account of their own. Raises BenchmarkError."""
    with Browser(port) as browser:
        browser.send("/signup", {"email": email, "password": PASSWORD, "account": "Bench"})


def log_in(port: int, email: str) -> str:
    """The session's Cookie header. Raises BenchmarkError."""
    with Browser(port) as browser:
        browser.send("/login", {"email": email, "password": PASSWORD})
        return browser.cookie
