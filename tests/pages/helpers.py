"""What the tests of pages share: mails and the links in them, and fresh people."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import select
from werkzeug.test import TestResponse

from extensions import db
from models.user import Mail
from tests import html
from tests.factories import PASSWORD


@dataclass(frozen=True)
class Letter:
    kind: str
    to: str
    text: str

    @property
    def link(self) -> str:
        """The address of the only link."""
        [found] = re.findall(r"https?://\S+", self.text)
        return str(found)

    @property
    def path(self) -> str:
        return urlsplit(self.link).path


def letters(app: Flask, kind: str | None = None) -> list[Letter]:
    """The outbox, oldest first."""
    with app.app_context():
        mails = list(db.session.scalars(select(Mail).order_by(Mail.created_at, Mail.id)))
        db.session.remove()
    return [Letter(mail.kind, mail.to, mail.text) for mail in mails if kind in (None, mail.kind)]


def sign_up(client: FlaskClient, email: str = "ann@example.com", password: str = PASSWORD, **data: str) -> TestResponse:
    return html.post(client, "/signup", {"email": email, "password": password, **data})


def log_in(client: FlaskClient, email: str = "ann@example.com", password: str = PASSWORD) -> TestResponse:
    return html.post(client, "/login", {"email": email, "password": password})


def is_logged_in(client: FlaskClient) -> bool:
    return client.get("/settings").status_code == 200


def available(client: FlaskClient) -> str:
    """What the usage page says can be spent."""
    page = client.get("/usage").text
    return page.partition('id="available">')[2].partition("<")[0]
