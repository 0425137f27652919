"""What Spillway's mails look like, for operators."""

from __future__ import annotations

from flask import Blueprint, render_template

from blueprints.auth import guard
from errors import NotFound
from services import letters

blueprint = Blueprint("admin_mails", __name__, url_prefix="/admin/mails")


@blueprint.get("")
@guard.operator_required
def index() -> str:
    return render_template("admin/mails.html", kinds=letters.KINDS, essential=letters.ESSENTIAL)


@blueprint.get("/<kind>")
@guard.operator_required
def preview(kind: str) -> str:
    if kind not in letters.KINDS:
        raise NotFound("There is no such mail.")
    return render_template("admin/mail.html", title=letters.KINDS[kind], letter=letters.sample(kind))
