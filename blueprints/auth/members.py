"""The page of an account's people. Owners and admins manage them; a member sees their own place and can leave."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Blueprint, flash, redirect, render_template, request, url_for
from flask_login import current_user
from werkzeug.wrappers import Response

import clock
from blueprints.auth import forms, guard
from errors import LastOwner, ValidationError
from models.account import Role
from services import invitations, members

blueprint = Blueprint("members_pages", __name__, url_prefix="/members")

Page = str | tuple[str, int] | Response


@blueprint.route("", methods=["GET", "POST"])
@guard.member_required
def index() -> Page:
    if request.method == "POST":
        return invite()
    return _page(_form())


def _form(**given: Any) -> forms.InviteForm:
    form = forms.InviteForm(**given)
    role = guard.current_membership().role
    form.role.choices = [(one.value, one.value) for one in reversed(Role) if members.may_set(role, one)]
    return form


def _page(form: forms.InviteForm, problem: str | None = None, status: int = 200) -> Page:
    account, mine = guard.current_account(), guard.current_membership()
    values: dict[str, Any] = {"account": account, "mine": mine, "problem": problem}
    if mine.manages:
        people = members.listing(account.id)
        values |= {
            "form": form,
            "people": people,
            "owners": sum(one.role == Role.OWNER for one in people),
            "waiting": invitations.waiting(account.id),
            "now": clock.now(),
            "roles": form.role.choices,
            "may_set": members.may_set,
        }
    return render_template("auth/members.html", **values), status


@guard.manager_required
def invite() -> Page:
    form = _form()
    if not form.validate_on_submit():
        return _page(form, status=422)
    email = form.email.data.strip()

    def work() -> None:
        invitations.invite(guard.current_account().id, current_user.id, email, Role(form.role.data))

    try:
        return _done(work, f"The invitation to {email} is on its way.")
    except ValidationError as error:
        forms.show(form, error)
        return _page(form, status=error.status)


def _done(work: Callable[[], None], message: str) -> Page:
    """Do the work and say so; nothing is done where the page was about another account than the session is now."""
    if request.form.get("account", guard.current_account().id) != guard.current_account().id:
        flash("You have switched to another account meanwhile, so nothing was done.", "error")
        return redirect(url_for("members_pages.index"))
    try:
        work()
    except LastOwner as error:
        return _page(_form(formdata=None), error.detail, error.status)
    flash(message, "success")
    return redirect(url_for("members_pages.index"))


@blueprint.post("/<user_id>/role")
@guard.manager_required
def change_role(user_id: str) -> Page:
    try:
        role = Role(request.form.get("role", ""))
    except ValueError:
        raise ValidationError({"role": ["Must be owner, admin or member."]}) from None
    account_id, me = guard.current_account().id, current_user.id
    return _done(lambda: members.change_role(account_id, me, user_id, role), "The role is changed.")


@blueprint.post("/<user_id>/remove")
@guard.manager_required
def remove(user_id: str) -> Page:
    if user_id == current_user.id:
        return leave()
    account_id, me = guard.current_account().id, current_user.id
    return _done(lambda: members.remove(account_id, me, user_id), "Their access has ended, and so have their tokens.")


@blueprint.post("/leave")
@guard.member_required
def leave() -> Page:
    account, me = guard.current_account(), current_user.id
    account_id, name = account.id, account.name
    answer = _done(lambda: members.leave(account_id, me), f"You have left {name}.")
    left = not any(place.account_id == account_id for place in members.places(me))
    return redirect(url_for("auth_pages.settings")) if left else answer


@blueprint.post("/invitations/<invitation_id>/again")
@guard.manager_required
def send_again(invitation_id: str) -> Page:
    account_id, me = guard.current_account().id, current_user.id
    return _done(
        lambda: invitations.send_again(account_id, me, invitation_id),
        "A new link is on its way; the one before no longer works.",
    )


@blueprint.post("/invitations/<invitation_id>/withdraw")
@guard.manager_required
def withdraw(invitation_id: str) -> Page:
    account_id, me = guard.current_account().id, current_user.id
    return _done(lambda: invitations.withdraw(account_id, me, invitation_id), "The invitation is withdrawn.")
