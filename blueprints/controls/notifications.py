"""Which mails come: a page for who is logged in, and links that work without."""

from __future__ import annotations

from flask import Blueprint, Response, flash, redirect, render_template, request, url_for
from flask_login import current_user
from werkzeug.wrappers import Response as AnyResponse

from blueprints.auth import guard
from services import letters, notices

blueprint = Blueprint("notification_pages", __name__)
one_click_blueprint = Blueprint("one_click", __name__)


@blueprint.route("/notifications", methods=["GET", "POST"])
@guard.member_required
def index() -> str | AnyResponse:
    account = guard.current_account()
    if request.method == "POST":
        notices.choose(current_user.email, account.id, request.form.getlist("kinds"))
        flash("That is how you will be told from now on.", "success")
        return redirect(url_for("notification_pages.index"))
    return render_template(
        "controls/notifications.html",
        account=account,
        kinds=letters.KINDS,
        essential=letters.ESSENTIAL,
        wanted=notices.wanted(current_user.email, account.id),
        manages=guard.current_membership().manages,
    )


@blueprint.route("/unsubscribe/<signed>", methods=["GET", "POST"])
@guard.public
def unsubscribe(signed: str) -> str:
    """Programs that look at every link of a mail must not stop it: that takes the button."""
    subscription = notices.subscription_of(signed)
    if request.method == "POST":
        notices.unsubscribe(subscription)
    return render_template(
        "controls/unsubscribe.html",
        what=letters.KINDS.get(subscription.kind, subscription.kind),
        account_name=notices.account_name(subscription.account_id),
        done=request.method == "POST",
    )


@one_click_blueprint.post("/api/unsubscribe/<signed>")
@guard.public
def one_click(signed: str) -> Response:
    """For mail programs (RFC 8058): they have no form to take a token from, and the link itself is signed."""
    notices.unsubscribe(notices.subscription_of(signed))
    return Response("These mails are stopped.\n", mimetype="text/plain")
