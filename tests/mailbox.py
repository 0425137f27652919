"""What was mailed to somebody, and the links in it."""

from __future__ import annotations

import re

from flask import Flask
from sqlalchemy import select

import database
from models.user import Mail


def mails(app: Flask, to: str, kind: str) -> list[str]:
    """The texts of the mails of that kind, oldest first."""
    with app.app_context(), database.transaction() as session:
        mine = select(Mail.text).where(Mail.to == to, Mail.kind == kind).order_by(Mail.created_at, Mail.id)
        return list(session.scalars(mine))


def secret(app: Flask, to: str, kind: str = "invitation") -> str:
    """The secret in the newest link of that kind."""
    found = re.search(r"https?://\S+/(\S+)", mails(app, to, kind)[-1])
    assert found is not None
    return found[1]
