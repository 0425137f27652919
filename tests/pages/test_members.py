"""The pages of an account's people: invitations, roles, leaving; switching, opening and closing accounts."""

from __future__ import annotations

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from models.account import Role
from services import accounts, invitations, members
from tests import factories, html, mailbox
from tests.factories import PASSWORD, Api, Cast, Person
from tests.moments import At


def text(client: FlaskClient, path: str = "/members") -> str:
    answer = client.get(path)
    assert answer.status_code == 200, answer.text
    return html.read(answer).text


def send(client: FlaskClient, path: str, page: str = "/members", **data: str) -> TestResponse:
    """Send a form as the page shows it; what it sends by itself included."""
    shown = html.read(client.get(page))
    form = next((one for one in shown.forms if one.action == path), None)
    assert form is not None, f"{page} has no form to {path}: {[one.action for one in shown.forms]}"
    return client.post(path, data={**form.fields, **data})


def actions(client: FlaskClient, page: str = "/members") -> set[str]:
    return {form.action for form in html.read(client.get(page)).forms}


def invite(cast: Cast, email: str, role: str = "member") -> TestResponse:
    return send(cast.alice.client, "/members", email=email, role=role)


def link(app: Flask, email: str) -> str:
    return f"/invitations/{mailbox.secret(app, email)}"


def names(app: Flask, account_id: str) -> dict[str, str]:
    with app.app_context():
        return {one.email.partition("@")[0]: one.role.value for one in members.listing(account_id)}


class TestTheList:
    def test_the_owner_sees_who_is_there_and_manages_them(self, cast: Cast) -> None:
        shown = text(cast.alice.client)
        assert "alice@example.com you" in shown and "bob@example.com" in shown
        bob = f"/members/{cast.bob.user_id}"
        assert {f"{bob}/role", f"{bob}/remove", "/members"} <= actions(cast.alice.client)
        assert "/members/leave" not in actions(cast.alice.client)
        assert "You are the only owner" in shown

    def test_a_member_sees_their_own_place_and_can_leave(self, app: Flask, cast: Cast) -> None:
        shown = text(cast.bob.client)
        assert "You are a member of Alice" in shown
        assert "alice@example.com" not in shown
        assert actions(cast.bob.client) == {"/logout", "/members/leave"}
        left = send(cast.bob.client, "/members/leave")
        assert (left.status_code, left.location) == (302, "/settings")
        assert names(app, cast.alice.account_id) == {"alice": "owner"}
        assert cast.bob.client.get("/usage").status_code == 403

    def test_an_admin_manages_all_but_owners(self, app: Flask, cast: Cast) -> None:
        factories.join(app, cast.charlie.user_id, cast.alice.account_id, Role.ADMIN)
        admin = cast.charlie.client
        assert f"/members/{cast.alice.user_id}/remove" not in actions(admin)
        assert 'value="owner"' not in admin.get("/members").text
        assert send(admin, f"/members/{cast.bob.user_id}/role", role="admin").status_code == 302
        assert send(admin, f"/members/{cast.bob.user_id}/remove").status_code == 302
        assert names(app, cast.alice.account_id) == {"alice": "owner", "charlie": "admin"}
        answer = html.post(admin, f"/members/{cast.charlie.user_id}/role", {"role": "owner"}, form="/members")
        assert answer.status_code == 403
        answer = html.post(admin, f"/members/{cast.alice.user_id}/remove", form="/members")
        assert answer.status_code == 403
        assert send(admin, "/members", email="nina@example.com", role="owner").status_code == 422
        assert names(app, cast.alice.account_id) == {"alice": "owner", "charlie": "admin"}

    def test_a_member_who_asks_anyway_is_refused(self, app: Flask, cast: Cast) -> None:
        bob = cast.bob.client
        with app.app_context():
            invitations.invite(cast.alice.account_id, cast.alice.user_id, "nina@example.com", Role.MEMBER)
            waiting = invitations.waiting(cast.alice.account_id)[0].id
        for path, data in (
            ("/members", {"email": "x@example.com", "role": "member"}),
            (f"/members/{cast.bob.user_id}/role", {"role": "owner"}),
            (f"/members/{cast.alice.user_id}/remove", {}),
            (f"/members/invitations/{waiting}/again", {}),
            (f"/members/invitations/{waiting}/withdraw", {}),
            ("/settings/close", {"name": "Alice"}),
        ):
            assert html.post(bob, path, dict(data), form="/members").status_code == 403, path
        assert names(app, cast.alice.account_id) == {"alice": "owner", "bob": "member"}

    def test_the_last_owner_is_told_so(self, app: Flask, cast: Cast) -> None:
        alice = cast.alice.client
        for path, data in (
            ("/members/leave", {}),
            (f"/members/{cast.alice.user_id}/remove", {}),
            (f"/members/{cast.alice.user_id}/role", {"role": "member"}),
        ):
            answer = html.post(alice, path, dict(data), form="/members")
            assert answer.status_code == 409
            assert "This is the account's last owner." in html.read(answer).text
        assert names(app, cast.alice.account_id)["alice"] == "owner"

    def test_unknown_roles_and_people(self, cast: Cast) -> None:
        path = f"/members/{cast.bob.user_id}/role"
        for role in ("", "king", "OWNER"):
            assert html.post(cast.alice.client, path, {"role": role}, form="/members").status_code == 422
        for person in ("usr_nobody", cast.charlie.user_id):
            gone = html.post(cast.alice.client, f"/members/{person}/role", {"role": "admin"}, form="/members")
            assert gone.status_code == 404
            assert html.post(cast.alice.client, f"/members/{person}/remove", form="/members").status_code == 404

    def test_nothing_is_done_without_a_csrf_token(self, app: Flask, cast: Cast) -> None:
        alice = cast.alice.client
        for path in (
            "/members",
            f"/members/{cast.bob.user_id}/remove",
            f"/members/{cast.bob.user_id}/role",
            "/members/leave",
            "/accounts/switch",
            "/accounts/new",
            "/settings/close",
        ):
            data = {"role": "admin", "email": "x@example.com", "name": "Alice", "account": cast.alice.account_id}
            assert alice.post(path, data=data).status_code == 400, path
        assert names(app, cast.alice.account_id) == {"alice": "owner", "bob": "member"}

    def test_nothing_on_the_pages_needs_what_the_policy_forbids(self, app: Flask, cast: Cast) -> None:
        invite(cast, "nina@example.com")
        for path in ("/members", "/settings", "/settings/close", "/accounts/new", link(app, "nina@example.com")):
            shown = html.read(cast.alice.client.get(path))
            assert shown.inline == []
            assert all(address.startswith(("/", "#")) for address in shown.addresses if address), path

    def test_names_are_shown_as_they_are(self, app: Flask, cast: Cast) -> None:
        with app.app_context():
            accounts.change(cast.alice.account_id, {"name": "<b>R&D</b>"})
        invite(cast, "nina@example.com")
        for path in ("/members", "/settings", link(app, "nina@example.com")):
            page = cast.alice.client.get(path).text
            assert "<b>R&D" not in page and "&lt;b&gt;R&amp;D&lt;/b&gt;" in page


class TestInviting:
    def test_an_invitation_waits_in_the_list_until_it_is_withdrawn(self, app: Flask, cast: Cast, at: At) -> None:
        answer = invite(cast, " Nina@example.com ", "admin")
        assert (answer.status_code, answer.location) == (302, "/members")
        shown = text(cast.alice.client)
        assert "The invitation to Nina@example.com is on its way." in shown
        assert "nina@example.com admin" in shown and "works until 2026-11-28 10:00 UTC" in shown
        at.forward(days=7)
        assert "nina@example.com admin expired" in text(cast.alice.client)
        again = next(path for path in actions(cast.alice.client) if path.endswith("/again"))
        assert send(cast.alice.client, again).status_code == 302
        assert "works until 2026-12-05 10:00 UTC" in text(cast.alice.client)
        withdraw = next(path for path in actions(cast.alice.client) if path.endswith("/withdraw"))
        secret = link(app, "nina@example.com")
        assert send(cast.alice.client, withdraw).status_code == 302
        assert "nina@example.com" not in text(cast.alice.client)
        assert app.test_client().get(secret).status_code == 404

    @pytest.mark.parametrize(
        ("email", "complaint"),
        [
            ("", "An e-mail address."),
            ("nobody", "Not an e-mail address."),
            ("bob@example.com", "bob@example.com is a member already."),
        ],
    )
    def test_what_can_not_be_is_said_at_the_field(self, cast: Cast, email: str, complaint: str) -> None:
        answer = invite(cast, email)
        assert answer.status_code == 422
        shown = html.read(answer)
        assert complaint in shown.text
        form = next(form for form in shown.forms if form.action == "/members")
        assert form.fields["email"] == email

    def test_the_answer_is_the_same_for_strangers_and_for_people_of_other_accounts(self, cast: Cast) -> None:
        pages = []
        for email in ("charlie@example.com", "quentin@example.com"):
            assert invite(cast, email).status_code == 302
            pages.append(text(cast.alice.client).replace(email.partition("@")[0], "somebody"))
            send(cast.alice.client, next(path for path in actions(cast.alice.client) if path.endswith("/withdraw")))
            text(cast.alice.client)
        assert pages[0] == pages[1]

    @pytest.mark.usefixtures("whole_window")
    def test_too_many_are_too_many(self, cast: Cast) -> None:
        assert invite(cast, "nina@example.com").status_code == 302
        again = next(path for path in actions(cast.alice.client) if path.endswith("/again"))
        answers = [send(cast.alice.client, again) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [302] * 4 + [429]
        assert int(answers[-1].headers["Retry-After"]) > 0


class TestJoining:
    def test_somebody_new_chooses_a_password_and_is_in(self, app: Flask, cast: Cast) -> None:
        invite(cast, "nina@example.com")
        nina, path = app.test_client(), link(app, "nina@example.com")
        for _ in range(2):  # looking uses nothing up
            shown = text(nina, path)
        assert "Join Alice" in shown and "You are new here" in shown
        assert html.post(nina, path, {"password": "short"}).status_code == 422
        joined = html.post(nina, path, {"password": PASSWORD})
        assert (joined.status_code, joined.location) == (302, "/usage")
        assert "Welcome to Alice." in text(nina, "/usage")
        assert names(app, cast.alice.account_id)["nina"] == "member"
        assert nina.get(path).status_code == 404
        assert factories.logged_in(app, "nina@example.com").get("/usage").status_code == 200
        assert "confirmed" in text(nina, "/settings")

    def test_somebody_known_logs_in_and_looks_at_the_account_they_joined(self, app: Flask, cast: Cast) -> None:
        invite(cast, "charlie@example.com", "admin")
        browser, path = app.test_client(), link(app, "charlie@example.com")
        assert "The one you use here already." in text(browser, path)
        wrong = html.post(browser, path, {"password": "not that one"})
        assert wrong.status_code == 422 and "That is not the password of this address." in wrong.text
        assert "charlie" not in names(app, cast.alice.account_id)
        assert html.post(browser, path, {"password": PASSWORD}).status_code == 302
        assert "People of Alice" in text(browser)
        assert names(app, cast.alice.account_id)["charlie"] == "admin"

    def test_who_is_logged_in_only_says_yes(self, app: Flask, cast: Cast) -> None:
        invite(cast, "charlie@example.com")
        path = link(app, "charlie@example.com")
        assert 'type="password"' not in cast.charlie.client.get(path).text
        assert cast.charlie.client.post(path).status_code == 400
        assert html.post(cast.charlie.client, path).status_code == 302
        assert "You are a member of Alice" in text(cast.charlie.client)

    def test_somebody_else_at_the_browser_is_told_whose_it_is(self, app: Flask, cast: Cast) -> None:
        invite(cast, "nina@example.com")
        path = link(app, "nina@example.com")
        assert "You are logged in as charlie@example.com; that ends when you join" in text(cast.charlie.client, path)
        assert html.post(cast.charlie.client, path, {"password": PASSWORD}).status_code == 302
        assert "nina@example.com" in text(cast.charlie.client, "/settings")
        assert names(app, cast.alice.account_id) == {"alice": "owner", "bob": "member", "nina": "member"}

    @pytest.mark.usefixtures("whole_window")
    def test_passwords_are_not_guessed_through_a_link(self, app: Flask, cast: Cast) -> None:
        invite(cast, "charlie@example.com")
        browser, path = app.test_client(), link(app, "charlie@example.com")
        answers = [html.post(browser, path, {"password": f"guess {number}"}).status_code for number in range(11)]
        assert answers == [422] * 10 + [429]

    def test_who_signs_up_while_the_page_is_open_is_asked_for_that_password(self, app: Flask, cast: Cast) -> None:
        invite(cast, "nina@example.com")
        browser, path = app.test_client(), link(app, "nina@example.com")
        token = html.csrf(browser, path)
        own = factories.person(app, "nina@example.com")
        answer = browser.post(path, data={"csrf_token": token, "password": "another password"})
        assert answer.status_code == 422 and "That is not the password of this address." in answer.text
        assert html.post(browser, path, {"password": PASSWORD}).status_code == 302
        with app.app_context():
            assert {place.account_id for place in members.places(own.user_id)} == {
                own.account_id,
                cast.alice.account_id,
            }


class TestEndOfAccess:
    def test_a_removed_person_is_out_with_the_next_click(self, app: Flask, cast: Cast) -> None:
        made = Api(app, factories.token(app, cast.alice.account_id, user_id=cast.bob.user_id))
        assert made.get("/balance").status == 200
        page = text(cast.alice.client)
        assert "bob@example.com loses access at once, and the token they made here stops working." in page
        assert send(cast.alice.client, f"/members/{cast.bob.user_id}/remove").status_code == 302
        for path in ("/usage", "/tokens", "/members"):
            refused = cast.bob.client.get(path)
            assert refused.status_code == 403 and "Alice" not in refused.text
            assert "You may not do that" in refused.text and "/accounts/new" in refused.text
        assert "None now." in text(cast.bob.client, "/settings")
        assert made.get("/balance").status == 401

    def test_who_has_another_account_is_back_there(self, app: Flask, cast: Cast) -> None:
        invite(cast, "charlie@example.com", "admin")
        html.post(cast.charlie.client, link(app, "charlie@example.com"))
        assert "People of Alice" in text(cast.charlie.client)
        send(cast.alice.client, f"/members/{cast.charlie.user_id}/remove")
        shown = text(cast.charlie.client)
        assert "People of Charlie" in shown and "Alice" not in shown

    def test_what_a_form_was_about_is_not_done_to_another_account(self, app: Flask, cast: Cast) -> None:
        invite(cast, "charlie@example.com", "admin")
        html.post(cast.charlie.client, link(app, "charlie@example.com"))
        form = next(form for form in html.read(cast.charlie.client.get("/members")).forms if form.action == "/members")
        send(cast.alice.client, f"/members/{cast.charlie.user_id}/remove")
        late = cast.charlie.client.post("/members", data={**form.fields, "email": "x@example.com", "role": "member"})
        assert late.status_code == 302
        assert "nothing was done" in text(cast.charlie.client)
        with app.app_context():
            assert invitations.waiting(cast.charlie.account_id) == []

    def test_stepping_down_shows_the_members_page(self, app: Flask, cast: Cast) -> None:
        factories.join(app, cast.charlie.user_id, cast.alice.account_id, Role.ADMIN)
        assert send(cast.charlie.client, f"/members/{cast.charlie.user_id}/role", role="member").status_code == 302
        assert "You are a member of Alice" in text(cast.charlie.client)


class TestAccounts:
    @pytest.fixture
    def both(self, app: Flask, cast: Cast) -> Person:
        """Charlie, who owns an account and is a member of Alice's, and looks at Alice's."""
        invite(cast, "charlie@example.com")
        assert html.post(cast.charlie.client, link(app, "charlie@example.com")).status_code == 302
        return cast.charlie

    def test_the_switcher_is_there_for_who_needs_it(self, cast: Cast, both: Person) -> None:
        assert "/accounts/switch" in actions(both.client, "/usage")
        assert "/accounts/switch" not in actions(cast.alice.client, "/usage")

    def test_switching_changes_what_the_pages_are_about(self, cast: Cast, both: Person) -> None:
        assert "You are a member of Alice" in text(both.client)
        there = send(both.client, "/accounts/switch", account=both.account_id)
        assert (there.status_code, there.location) == (302, "/members")
        assert "People of Charlie" in text(both.client)
        back = send(both.client, "/accounts/switch", page="/usage", account=cast.alice.account_id)
        assert (back.status_code, back.location) == (302, "/usage")
        assert "You now look at Alice." in text(both.client, "/usage")
        assert "You are a member of Alice" in text(both.client)

    def test_nobody_switches_to_what_is_not_theirs(self, cast: Cast, both: Person) -> None:
        for account in ("", "acc_nobody", both.account_id):
            answer = html.post(cast.alice.client, "/accounts/switch", {"account": account}, form="/settings")
            assert answer.status_code == 404
        assert "Charlie" not in cast.alice.client.get("/usage").text
        assert cast.alice.client.get("/accounts/switch").status_code == 405

    @pytest.mark.parametrize("following", ["//evil.example", "https://evil.example", "/\\evil.example", "usage"])
    def test_switching_stays_on_this_site(self, both: Person, following: str) -> None:
        answer = send(both.client, "/accounts/switch", account=both.account_id, next=following)
        assert answer.location == "/usage"

    def test_a_new_password_keeps_the_account_one_looks_at(self, both: Person) -> None:
        data = {"current": PASSWORD, "new": PASSWORD + "!"}
        assert html.post(both.client, "/settings", data).status_code == 302
        assert "You are a member of Alice" in text(both.client)

    def test_a_further_account_begins_without_credits(self, app: Flask, cast: Cast) -> None:
        alice = cast.alice.client
        for name in ("", "  ", "x" * 201):
            assert html.post(alice, "/accounts/new", {"name": name}).status_code == 422
        opened = html.post(alice, "/accounts/new", {"name": " Second "})
        assert (opened.status_code, opened.location) == (302, "/usage")
        assert html.read(alice.get("/usage")).text.count("Second") >= 1
        assert "People of Second" in text(alice)
        with app.app_context():
            mine = {place.name: place.account_id for place in members.places(cast.alice.user_id)}
        operator = Api(app, factories.service_token(app))
        assert operator.get(f"/balance?account={mine['Second']}").json["available"] == 0
        assert operator.get(f"/balance?account={mine['Alice']}").json["available"] == 100

    def test_who_belongs_nowhere_can_open_an_account(self, app: Flask, cast: Cast) -> None:
        send(cast.bob.client, "/members/leave")
        assert html.post(cast.bob.client, "/accounts/new", {"name": "Bob's own"}).status_code == 302
        assert "Bob's own" in text(cast.bob.client, "/usage")


class TestClosing:
    def test_an_owner_closes_by_typing_the_name(self, app: Flask, cast: Cast, operator: Api) -> None:
        alice = cast.alice.client
        for name in ("", "alice", "Bob"):
            wrong = send(alice, "/settings/close", page="/settings", name=name)
            assert wrong.status_code == 422 and "Close the account" in wrong.text
        assert operator.get(f"/accounts/{cast.alice.account_id}").json["status"] == "active"
        done = send(alice, "/settings/close", page="/settings", name=" Alice ")
        assert (done.status_code, done.location) == (302, "/settings")
        assert operator.get(f"/accounts/{cast.alice.account_id}").json["status"] == "closed"
        refused = operator.post("/usage", {"account": cast.alice.account_id, "credits": 1})
        assert refused.code == "account_closed"

    def test_its_pages_stay_readable(self, app: Flask, cast: Cast) -> None:
        send(cast.alice.client, "/settings/close", page="/settings", name="Alice")
        for person in (cast.alice, cast.bob):
            for path in ("/usage", "/tokens", "/members", "/settings"):
                assert person.client.get(path).status_code == 200
        assert "/settings/close" not in actions(cast.alice.client, "/settings")
        assert "/members" not in actions(cast.alice.client)
        assert "This account is closed" in text(cast.alice.client)
        assert "/tokens" not in actions(cast.alice.client, "/tokens")
        assert "no new one can be made" in text(cast.alice.client, "/tokens")
        refused = html.post(cast.alice.client, "/members", {"email": "x@example.com", "role": "member"})
        assert refused.status_code == 403 and "The account is closed" in refused.text

    def test_only_owners_see_and_reach_it(self, app: Flask, cast: Cast) -> None:
        factories.join(app, cast.charlie.user_id, cast.alice.account_id, Role.ADMIN)
        for person in (cast.bob, cast.charlie):
            assert "/settings/close" not in actions(person.client, "/settings")
            assert person.client.get("/settings/close").status_code == 403
            assert html.post(person.client, "/settings/close", {"name": "Alice"}, form="/settings").status_code == 403
        with app.app_context():
            assert not accounts.get(cast.alice.account_id).is_closed

    def test_a_form_about_another_account_closes_nothing(self, app: Flask, cast: Cast) -> None:
        html.post(cast.alice.client, "/accounts/new", {"name": "Alice"})
        late = send(cast.alice.client, "/settings/close", page="/settings", name="Alice", account=cast.alice.account_id)
        assert late.status_code == 302
        with app.app_context():
            assert not any(place.is_closed for place in members.places(cast.alice.user_id))
