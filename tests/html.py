"""What a browser would make of a page: its forms, and everything it would load or run."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

_LOADING = {"src", "href", "action", "formaction", "data", "poster", "srcset", "xlink:href"}


@dataclass
class Form:
    method: str = "get"
    action: str = ""
    fields: dict[str, str] = field(default_factory=dict)


class Page(HTMLParser):
    """`addresses` is all that elements point to or load; `inline` is what a strict policy would have to forbid."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.forms: list[Form] = []
        self.addresses: list[str] = []
        self.inline: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self._form: Form | None = None
        self._within: str | None = None
        self.feed(html)
        self.close()

    @property
    def text(self) -> str:
        """What a reader sees, its white space made single."""
        return " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.tags.append(tag)
        self._note_loading(tag, values)
        self._within = tag if tag in ("script", "style") else None
        if tag == "form":
            self._form = Form(values.get("method", "get").lower(), values.get("action", ""))
            self.forms.append(self._form)
        elif self._form is not None and _is_sent(tag, values):
            self._form.fields[values["name"]] = values.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        self._within = None
        if tag == "form":
            self._form = None

    def handle_data(self, data: str) -> None:
        if self._within is None:
            self.words.append(data)
        elif data.strip():
            self.inline.append(f"<{self._within}> {data.strip()[:80]}")

    def _note_loading(self, tag: str, values: dict[str, str]) -> None:
        self.addresses += [value for name, value in values.items() if name in _LOADING]
        self.inline += [
            f"<{tag} {name}>" for name in values if name == "style" or (name.startswith("on") and len(name) > 3)
        ]
        self.inline += [f"<{tag}> {value}" for value in values.values() if value.lower().startswith("javascript:")]


def _is_sent(tag: str, values: dict[str, str]) -> bool:
    """Whether a browser would send the element's value as it stands."""
    chosen = values.get("type") not in ("checkbox", "radio") or "checked" in values
    return tag in ("input", "textarea") and "name" in values and chosen


def read(answer: TestResponse) -> Page:
    return Page(answer.get_data(as_text=True))


def csrf(client: FlaskClient, path: str = "/login") -> str:
    """A CSRF token of the browser's session, from the first form of the page that `path` ends at."""
    for form in read(client.get(path, follow_redirects=True)).forms:
        if "csrf_token" in form.fields:
            return form.fields["csrf_token"]
    raise AssertionError(f"{path} has no form with a CSRF token")


def post(client: FlaskClient, path: str, data: dict[str, object] | None = None, *, form: str = "") -> TestResponse:
    """Send a form with the CSRF token that the page `form` (by default the same path) shows."""
    return client.post(path, data={**(data or {}), "csrf_token": csrf(client, form or path)})
