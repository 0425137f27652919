"""Who belongs to an account and what they may do: invited, joined, changed, gone, also when it happens all at once."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select

import database
from errors import (
    AccountClosed,
    Forbidden,
    LastOwner,
    NotFound,
    RateLimited,
    SpillwayError,
    Unauthenticated,
    ValidationError,
)
from models.account import Account, Role
from models.invitation import Invitation
from models.token import Token
from models.user import Mail, User
from services import accounts, balances, invitations, members, people, pruning, tokens
from tests import factories, mailbox
from tests.factories import PASSWORD, Api, Person
from tests.moments import At
from tests.together import at_once

FREE = pytest.mark.settings(free_monthly_credits=Decimal(30))
VERIFIED = pytest.mark.settings(signup_grant="verified")


def attempt(app: Flask, work: Callable[..., Any], *arguments: Any, **values: Any) -> Callable[[], Any]:
    """The work in an app context of its own; what refuses it is returned."""

    def run() -> Any:
        with app.app_context():
            try:
                return work(*arguments, **values)
            except SpillwayError as error:
                return error

    return run


def do(app: Flask, work: Callable[..., Any], *arguments: Any, **values: Any) -> Any:
    with app.app_context():
        return work(*arguments, **values)


def one(app: Flask, model: Any, *where: Any) -> Any:
    with app.app_context(), database.transaction() as session:
        return session.scalars(select(model).where(*where)).one()


def user(app: Flask, email: str) -> User:
    found: User = one(app, User, User.email == email)
    return found


def roles(app: Flask, account_id: str) -> dict[str, str]:
    """Role by the part of the address before the @."""
    return {one.email.partition("@")[0]: one.role.value for one in do(app, members.listing, account_id)}


def waiting(app: Flask, account_id: str) -> list[str]:
    return sorted(one.email.partition("@")[0] for one in do(app, invitations.waiting, account_id))


def invite(app: Flask, actor: Person, email: str, role: Role = Role.MEMBER) -> str:
    """Invite into the actor's account; the secret that was mailed."""
    do(app, invitations.invite, actor.account_id, actor.user_id, email, role)
    return mailbox.secret(app, email)


def recruit(app: Flask, owner: Person, name: str, role: Role) -> Person:
    """Somebody new in the owner's account."""
    email = f"{name}@example.com"
    joined, account_id = do(app, invitations.accept_new, invite(app, owner, email, role), PASSWORD)
    return Person(joined.id, email, account_id, factories.logged_in(app, email))


def granted(app: Flask, account_id: str) -> Any:
    return do(app, balances.balance, account_id)["granted"]["total"]


def token_of(app: Flask, person: Person, *scopes: str, account_id: str | None = None) -> Api:
    """The API with a token that the person made."""
    made_in = account_id or person.account_id
    return Api(app, factories.token(app, made_in, *scopes, user_id=person.user_id))


@pytest.fixture
def owner(app: Flask) -> Person:
    return factories.person(app, "olga@example.com")


class TestInviting:
    def test_who_may_invite_whom(self, app: Flask, owner: Person) -> None:
        admin, member = recruit(app, owner, "adam", Role.ADMIN), recruit(app, owner, "mia", Role.MEMBER)
        allowed = {
            (actor.email, role): not isinstance(
                attempt(
                    app, invitations.invite, owner.account_id, actor.user_id, f"{role}-{number}@example.com", role
                )(),
                Forbidden,
            )
            for number, actor in enumerate((owner, admin, member))
            for role in Role
        }
        assert {key for key, may in allowed.items() if may} == {
            *((owner.email, role) for role in Role),
            (admin.email, Role.ADMIN),
            (admin.email, Role.MEMBER),
        }
        outsider = factories.person(app, "otto@example.com")
        with pytest.raises(Forbidden):
            do(app, invitations.invite, owner.account_id, outsider.user_id, "x@example.com", Role.MEMBER)

    def test_the_mail_names_who_invites_where_to_and_as_what(self, app: Flask, owner: Person) -> None:
        do(app, accounts.change, owner.account_id, {"name": "Two\r\nlines: & more"})
        do(app, invitations.invite, owner.account_id, owner.user_id, " Nina@Example.COM ", Role.ADMIN)
        mail = one(app, Mail, Mail.to == "nina@example.com")
        assert mail.subject == "Join Two lines: & more"
        assert (
            "olga@example.com invites you to join the account “Two lines: & more” on Spillway as an admin" in mail.text
        )
        secret = mailbox.secret(app, "nina@example.com")
        assert f"http://127.0.0.1:8000/invitations/{secret}\n" in mail.text
        row = one(app, Invitation)
        assert secret not in repr([getattr(row, column.name) for column in Invitation.__table__.columns])

    def test_members_and_those_who_are_invited_already_are_named(self, app: Flask, owner: Person) -> None:
        recruit(app, owner, "mia", Role.MEMBER)
        invite(app, owner, "nina@example.com")
        for email, reason in (("Mia@example.com", "is a member already"), ("nina@example.com ", "is invited already")):
            with pytest.raises(ValidationError, match=reason):
                do(app, invitations.invite, owner.account_id, owner.user_id, email, Role.ADMIN)
        assert waiting(app, owner.account_id) == ["nina"]
        assert len(mailbox.mails(app, "nina@example.com", "invitation")) == 1

    def test_strangers_and_people_of_other_accounts_look_alike(self, app: Flask, owner: Person) -> None:
        factories.person(app, "bob@example.com")
        for email in ("bob@example.com", "nobody@example.com"):
            assert invite(app, owner, email)
        known, unknown = do(app, invitations.waiting, owner.account_id)
        assert {known.email, unknown.email} == {"bob@example.com", "nobody@example.com"}
        differing = {"id", "email", "secret_hash", "sent_at", "expires_at", "created_at"}
        for column in {column.name for column in Invitation.__table__.columns} - differing:
            assert getattr(known, column) == getattr(unknown, column), column

    @pytest.mark.parametrize("email", ["", "nobody", "a@b", "a b@example.com", "a@example.com\nbcc: b@example.com"])
    def test_what_is_no_address_is_refused(self, app: Flask, owner: Person, email: str) -> None:
        with pytest.raises(ValidationError, match="Not an e-mail address"):
            do(app, invitations.invite, owner.account_id, owner.user_id, email, Role.MEMBER)

    @pytest.mark.usefixtures("whole_window")
    def test_one_address_is_not_written_to_again_and_again(self, app: Flask, owner: Person) -> None:
        invite(app, owner, "nina@example.com")
        waiting_id = do(app, invitations.waiting, owner.account_id)[0].id
        for _ in range(4):
            do(app, invitations.send_again, owner.account_id, owner.user_id, waiting_id)
        with pytest.raises(RateLimited):
            do(app, invitations.send_again, owner.account_id, owner.user_id, waiting_id)
        do(app, invitations.withdraw, owner.account_id, owner.user_id, waiting_id)
        with pytest.raises(RateLimited):
            do(app, invitations.invite, owner.account_id, owner.user_id, "nina@example.com", Role.MEMBER)
        assert len(mailbox.mails(app, "nina@example.com", "invitation")) == 5

    @pytest.mark.usefixtures("whole_window")
    def test_one_account_invites_fifty_a_day(self, app: Flask, owner: Person) -> None:
        for number in range(50):
            do(app, invitations.invite, owner.account_id, owner.user_id, f"n{number}@example.com", Role.MEMBER)
        with pytest.raises(RateLimited):
            do(app, invitations.invite, owner.account_id, owner.user_id, "one-more@example.com", Role.MEMBER)
        assert len(waiting(app, owner.account_id)) == 50

    def test_an_owners_invitation_is_an_owners_to_handle(self, app: Flask, owner: Person) -> None:
        admin = recruit(app, owner, "adam", Role.ADMIN)
        secret = invite(app, owner, "nina@example.com", Role.OWNER)
        waiting_id = do(app, invitations.waiting, owner.account_id)[0].id
        for handle in (invitations.send_again, invitations.withdraw):
            with pytest.raises(Forbidden):
                do(app, handle, owner.account_id, admin.user_id, waiting_id)
        assert do(app, invitations.opened, secret).role == "owner"

    def test_another_accounts_invitation_is_not_there(self, app: Flask, owner: Person) -> None:
        other = factories.person(app, "otto@example.com")
        secret = invite(app, owner, "nina@example.com")
        waiting_id = do(app, invitations.waiting, owner.account_id)[0].id
        for handle in (invitations.send_again, invitations.withdraw):
            with pytest.raises(NotFound):
                do(app, handle, other.account_id, other.user_id, waiting_id)
            with pytest.raises(Forbidden):
                do(app, invitations.withdraw, owner.account_id, other.user_id, waiting_id)
        assert do(app, invitations.opened, secret)


class TestLinks:
    def test_somebody_new_joins_with_a_password_and_no_account_of_their_own(self, app: Flask, owner: Person) -> None:
        secret = invite(app, owner, "nina@example.com", Role.ADMIN)
        offer = do(app, invitations.opened, secret)
        assert (offer.account_name, offer.role, offer.email) == ("Olga", "admin", "nina@example.com")
        assert (offer.invited_by, offer.is_known) == ("olga@example.com", False)
        nina, account_id = do(app, invitations.accept_new, secret, PASSWORD)
        assert account_id == owner.account_id and nina.email_verified_at is not None
        assert [place.account_id for place in do(app, members.places, nina.id)] == [owner.account_id]
        assert do(app, people.log_in, "nina@example.com", PASSWORD, "127.0.0.1") is not None
        assert roles(app, owner.account_id) == {"olga": "owner", "nina": "admin"}
        assert granted(app, owner.account_id) == 100

    def test_somebody_known_joins_with_what_they_have(self, app: Flask, owner: Person) -> None:
        bob = factories.person(app, "bob@example.com")
        secret = invite(app, owner, "bob@example.com")
        assert do(app, invitations.opened, secret).is_known
        assert do(app, invitations.accept, secret, user(app, "bob@example.com")) == owner.account_id
        assert user(app, "bob@example.com").email_verified_at is not None
        assert {place.role for place in do(app, members.places, bob.user_id)} == {Role.OWNER, Role.MEMBER}
        assert (granted(app, owner.account_id), granted(app, bob.account_id)) == (100, 100)

    def test_it_is_for_the_address_it_was_sent_to(self, app: Flask, owner: Person) -> None:
        factories.person(app, "mallory@example.com")
        secret = invite(app, owner, "nina@example.com")
        with pytest.raises(Forbidden):
            do(app, invitations.accept, secret, user(app, "mallory@example.com"))
        assert "mallory" not in roles(app, owner.account_id)
        assert do(app, invitations.opened, secret)

    def test_it_works_for_seven_days(self, app: Flask, at: At, owner: Person) -> None:
        secret = invite(app, owner, "nina@example.com")
        at.forward(days=7, seconds=-1)
        assert do(app, invitations.opened, secret)
        at.forward(seconds=1)
        self.refused(app, secret)
        assert waiting(app, owner.account_id) == ["nina"]

    def test_it_works_once(self, app: Flask, owner: Person) -> None:
        secret = invite(app, owner, "nina@example.com")
        do(app, invitations.accept_new, secret, PASSWORD)
        self.refused(app, secret, "nina@example.com")

    def test_sent_again_only_the_new_link_works_and_for_seven_days_more(
        self, app: Flask, at: At, owner: Person
    ) -> None:
        first = invite(app, owner, "nina@example.com")
        at.forward(days=8)
        waiting_id = do(app, invitations.waiting, owner.account_id)[0].id
        do(app, invitations.send_again, owner.account_id, owner.user_id, waiting_id)
        second = mailbox.secret(app, "nina@example.com")
        self.refused(app, first)
        at.forward(days=6)
        assert do(app, invitations.accept_new, second, PASSWORD)[1] == owner.account_id

    def test_withdrawn_it_is_dead_and_the_address_can_be_invited_anew(self, app: Flask, owner: Person) -> None:
        first = invite(app, owner, "nina@example.com")
        waiting_id = do(app, invitations.waiting, owner.account_id)[0].id
        do(app, invitations.withdraw, owner.account_id, owner.user_id, waiting_id)
        self.refused(app, first)
        for handle in (invitations.withdraw, invitations.send_again):
            with pytest.raises(NotFound):
                do(app, handle, owner.account_id, owner.user_id, waiting_id)
        assert do(app, invitations.opened, invite(app, owner, "nina@example.com"))

    def test_one_answer_for_every_link_that_is_not_good(self, app: Flask, owner: Person) -> None:
        used, withdrawn, closed = (invite(app, owner, f"{name}@example.com") for name in ("u", "w", "c"))
        do(app, invitations.accept_new, used, PASSWORD)
        waiting_id = next(one.id for one in do(app, invitations.waiting, owner.account_id) if one.email[0] == "w")
        do(app, invitations.withdraw, owner.account_id, owner.user_id, waiting_id)
        do(app, accounts.close, owner.account_id, "over")
        answers = [attempt(app, invitations.opened, secret)() for secret in (used, withdrawn, closed, "never", "")]
        assert {(type(answer), answer.detail) for answer in answers} == {
            (NotFound, "This invitation was used or withdrawn, or has expired. Ask for a new one.")
        }

    def test_who_signed_up_meanwhile_keeps_their_password(self, app: Flask, owner: Person) -> None:
        secret = invite(app, owner, "nina@example.com")
        factories.person(app, "nina@example.com")
        with pytest.raises(ValidationError, match="signed up with this address meanwhile"):
            do(app, invitations.accept_new, secret, "another password")
        assert do(app, people.log_in, "nina@example.com", "another password", "127.0.0.1") is None
        assert do(app, invitations.accept, secret, user(app, "nina@example.com")) == owner.account_id

    def test_a_new_person_needs_a_password_worth_the_name(self, app: Flask, owner: Person) -> None:
        secret = invite(app, owner, "nina@example.com")
        for password in ("short", "nina@example.com", "x" * 201):
            with pytest.raises(ValidationError):
                do(app, invitations.accept_new, secret, password)
        assert do(app, invitations.opened, secret)

    def test_nobody_can_be_invited_into_a_closed_account(self, app: Flask, owner: Person) -> None:
        do(app, accounts.close, owner.account_id, "over")
        with pytest.raises(AccountClosed):
            do(app, invitations.invite, owner.account_id, owner.user_id, "nina@example.com", Role.MEMBER)

    def test_what_nobody_took_is_thrown_away_after_a_season(self, app: Flask, at: At, owner: Person) -> None:
        do(app, invitations.accept_new, invite(app, owner, "nina@example.com"), PASSWORD)
        invite(app, owner, "late@example.com")
        at.forward(days=96)
        do(app, pruning.prune)
        assert waiting(app, owner.account_id) == ["late"]
        at.forward(days=2)
        do(app, pruning.prune)
        assert waiting(app, owner.account_id) == []
        assert one(app, Invitation).email == "nina@example.com"

    @staticmethod
    def refused(app: Flask, secret: str, email: str | None = None) -> None:
        with pytest.raises(NotFound):
            do(app, invitations.opened, secret)
        with pytest.raises(NotFound):
            do(app, invitations.accept_new, secret, PASSWORD)
        if email is not None:
            with pytest.raises(NotFound):
                do(app, invitations.accept, secret, user(app, email))


class TestCreditsOfPeople:
    @VERIFIED
    def test_joining_brings_none_not_even_to_invited_owners_who_prove_their_address_again(
        self, app: Flask, owner: Person
    ) -> None:
        recruit(app, owner, "nina", Role.OWNER)
        do(app, people.request_reset, "nina@example.com")
        do(app, people.reset, mailbox.secret(app, "nina@example.com", "password_reset"), PASSWORD + "!")
        assert granted(app, owner.account_id) == 0

    @VERIFIED
    def test_a_link_that_proves_an_address_frees_the_credits_of_the_persons_own_account(
        self, app: Flask, owner: Person
    ) -> None:
        bob = factories.person(app, "bob@example.com")
        secret = invite(app, owner, "bob@example.com", Role.OWNER)
        do(app, invitations.accept, secret, user(app, "bob@example.com"))
        assert (granted(app, owner.account_id), granted(app, bob.account_id)) == (0, 100)

    def test_a_further_account_brings_no_second_sign_up_credits(self, app: Flask, owner: Person) -> None:
        olga = user(app, "olga@example.com")
        further = do(app, accounts.open_account, olga, "Further")
        assert (granted(app, owner.account_id), granted(app, further.id)) == (100, 0)
        assert roles(app, further.id) == {"olga": "owner"}
        assert [place.name for place in do(app, members.places, olga.id)] == ["Further", "Olga"]

    def test_the_first_account_of_an_invited_person_is_their_sign_up(self, app: Flask, owner: Person) -> None:
        recruit(app, owner, "nina", Role.MEMBER)
        nina = user(app, "nina@example.com")
        made = [do(app, accounts.open_account, nina, name) for name in ("One", "Two")]
        assert [granted(app, account.id) for account in made] == [100, 0]

    @FREE
    def test_the_free_allowance_comes_to_one_account_of_a_person(self, app: Flask, at: At, owner: Person) -> None:
        further = do(app, accounts.open_account, user(app, "olga@example.com"), "Further")
        by_operator, _ = do(app, accounts.create_by_operator, "acme", "Acme", "olga@example.com")
        for _ in range(2):
            included = [
                do(app, balances.balance, account_id)["allowance"]["included"]
                for account_id in (owner.account_id, further.id, by_operator.id)
            ]
            assert included == [30, 0, 30]
            at.forward(days=31)

    @FREE
    def test_closing_and_opening_farms_no_free_allowance(self, app: Flask, owner: Person) -> None:
        do(app, accounts.close, owner.account_id, "to begin anew")
        anew = do(app, accounts.open_account, user(app, "olga@example.com"), "Anew")
        assert do(app, balances.balance, anew.id)["available"] == 0

    @FREE
    def test_many_accounts_opened_at_once_have_it_once(self, app: Flask, owner: Person) -> None:
        recruit(app, owner, "nina", Role.MEMBER)
        nina = user(app, "nina@example.com")
        made = at_once(*[attempt(app, accounts.open_account, nina, f"Number {number}") for number in range(4)])
        found = [do(app, balances.balance, account.id) for account in made]
        assert sorted(balance["allowance"]["included"] for balance in found) == [0, 0, 0, 30]
        assert sorted(balance["granted"]["total"] for balance in found) == [0, 0, 0, 100]

    @pytest.mark.usefixtures("whole_window")
    def test_ten_accounts_an_hour(self, app: Flask, owner: Person) -> None:
        olga = user(app, "olga@example.com")
        for number in range(10):
            do(app, accounts.open_account, olga, str(number))
        with pytest.raises(RateLimited):
            do(app, accounts.open_account, olga, "one more")


class TestRoles:
    def test_who_may_give_which_role_to_whom(self, app: Flask, owner: Person) -> None:
        """Owners all; admins all but owners and the owner's role; members nothing."""
        actors = {
            Role.OWNER: owner,
            Role.ADMIN: recruit(app, owner, "adam", Role.ADMIN),
            Role.MEMBER: recruit(app, owner, "mia", Role.MEMBER),
        }
        targets = {role: recruit(app, owner, f"target-{role}", role) for role in Role}
        for acting, actor in actors.items():
            for before, target in targets.items():
                for after in Role:
                    answer = attempt(app, members.change_role, owner.account_id, actor.user_id, target.user_id, after)()
                    may = acting == Role.OWNER or (acting == Role.ADMIN and Role.OWNER not in (before, after))
                    assert isinstance(answer, Forbidden) != may, (acting, before, after)
                    expected = after if may else before
                    assert roles(app, owner.account_id)[f"target-{before}"] == expected
                    do(app, members.change_role, owner.account_id, owner.user_id, target.user_id, before)

    def test_who_may_remove_whom(self, app: Flask, owner: Person) -> None:
        admin, member = recruit(app, owner, "adam", Role.ADMIN), recruit(app, owner, "mia", Role.MEMBER)
        for actor, name, role, may in (
            (member, "a", Role.MEMBER, False),
            (admin, "b", Role.OWNER, False),
            (admin, "c", Role.ADMIN, True),
            (admin, "d", Role.MEMBER, True),
            (owner, "e", Role.OWNER, True),
        ):
            target = recruit(app, owner, name, role)
            answer = attempt(app, members.remove, owner.account_id, actor.user_id, target.user_id)()
            assert isinstance(answer, Forbidden) != may
            assert (name in roles(app, owner.account_id)) != may

    def test_strangers_are_not_there_and_do_nothing(self, app: Flask, owner: Person) -> None:
        other = factories.person(app, "otto@example.com")
        with pytest.raises(NotFound):
            do(app, members.change_role, owner.account_id, owner.user_id, other.user_id, Role.MEMBER)
        with pytest.raises(NotFound):
            do(app, members.remove, owner.account_id, owner.user_id, "usr_nobody")
        with pytest.raises(NotFound):
            do(app, members.leave, owner.account_id, other.user_id)
        for work in (members.remove, members.change_role):
            with pytest.raises(Forbidden):
                extra = (Role.MEMBER,) if work is members.change_role else ()
                do(app, work, owner.account_id, other.user_id, owner.user_id, *extra)
        assert roles(app, other.account_id) == {"otto": "owner"}

    def test_the_last_owner_stays_one(self, app: Flask, owner: Person) -> None:
        recruit(app, owner, "adam", Role.ADMIN)
        account, me = owner.account_id, owner.user_id
        for work, arguments in (
            (members.leave, (account, me)),
            (members.remove, (account, me, me)),
            (members.change_role, (account, me, me, Role.ADMIN)),
        ):
            with pytest.raises(LastOwner):
                do(app, work, *arguments)
        do(app, members.change_role, account, me, me, Role.OWNER)
        second = recruit(app, owner, "paul", Role.OWNER)
        do(app, members.leave, account, me)
        with pytest.raises(LastOwner):
            do(app, members.leave, account, second.user_id)
        assert roles(app, account) == {"adam": "admin", "paul": "owner"}

    def test_the_accounts_email_stays_an_owners(self, app: Flask, owner: Person) -> None:
        second = recruit(app, owner, "paul", Role.OWNER)
        do(app, members.change_role, owner.account_id, second.user_id, owner.user_id, Role.ADMIN)
        assert one(app, Account, Account.id == owner.account_id).email == "paul@example.com"
        do(app, accounts.change, owner.account_id, {"email": "books@example.com"})
        do(app, members.change_role, owner.account_id, second.user_id, owner.user_id, Role.OWNER)
        do(app, members.leave, owner.account_id, second.user_id)
        assert one(app, Account, Account.id == owner.account_id).email == "books@example.com"


class TestEndOfAccess:
    @pytest.mark.parametrize("way", ["removed", "left"])
    def test_tokens_they_made_in_the_account_stop_at_once(self, app: Flask, owner: Person, way: str) -> None:
        bob = factories.person(app, "bob@example.com")
        secret = invite(app, owner, "bob@example.com", Role.ADMIN)
        do(app, invitations.accept, secret, user(app, "bob@example.com"))
        made = token_of(app, bob, "read", "write", "tokens", account_id=owner.account_id)
        child = Api(app, made.post("/tokens", {"name": "child", "scopes": ["read"]}).json["token"])
        elsewhere, owners = token_of(app, bob), token_of(app, owner)
        assert {one.email: one.tokens for one in do(app, members.listing, owner.account_id)} == {
            "olga@example.com": 1,
            "bob@example.com": 2,
        }
        assert [api.get("/balance").status for api in (made, child, elsewhere, owners)] == [200] * 4
        if way == "removed":
            do(app, members.remove, owner.account_id, owner.user_id, bob.user_id)
        else:
            do(app, members.leave, owner.account_id, bob.user_id)
        assert [api.get("/balance").status for api in (made, child, elsewhere, owners)] == [401, 401, 200, 200]
        assert made.post("/usage", {"credits": 1}).status == 401
        assert [place.account_id for place in do(app, members.places, bob.user_id)] == [bob.account_id]
        with pytest.raises(Forbidden):
            do(app, tokens.create, account_id=owner.account_id, name="x", scopes=["read"], user_id=bob.user_id)

    def test_a_former_admin_keeps_only_what_members_have(self, app: Flask, owner: Person) -> None:
        admin = recruit(app, owner, "adam", Role.ADMIN)
        narrow, wide = token_of(app, admin, "write"), token_of(app, admin, "read", "billing")
        invite(app, admin, "nina@example.com")
        kept = invite(app, owner, "nora@example.com", Role.OWNER)
        do(app, members.change_role, owner.account_id, owner.user_id, admin.user_id, Role.MEMBER)
        assert narrow.post("/usage", {"credits": 1}).status == 201
        assert wide.get("/balance").status == 401
        assert waiting(app, owner.account_id) == ["nora"] and do(app, invitations.opened, kept)

    def test_a_former_owner_can_not_have_left_owners_invited(self, app: Flask, owner: Person) -> None:
        second = recruit(app, owner, "paul", Role.OWNER)
        for name, role in (("own", Role.OWNER), ("adm", Role.ADMIN)):
            invite(app, second, f"{name}@example.com", role)
        do(app, members.change_role, owner.account_id, owner.user_id, second.user_id, Role.ADMIN)
        assert waiting(app, owner.account_id) == ["adm"]
        do(app, members.remove, owner.account_id, owner.user_id, second.user_id)
        assert waiting(app, owner.account_id) == []

    def test_who_was_removed_can_be_invited_again_and_has_no_old_token_back(self, app: Flask, owner: Person) -> None:
        mia = recruit(app, owner, "mia", Role.MEMBER)
        made = token_of(app, mia)
        do(app, members.remove, owner.account_id, owner.user_id, mia.user_id)
        secret = invite(app, owner, "mia@example.com")
        do(app, invitations.accept, secret, user(app, "mia@example.com"))
        assert roles(app, owner.account_id) == {"olga": "owner", "mia": "member"}
        assert made.get("/balance").status == 401


class TestAtOnce:
    def test_two_last_owners_who_leave_leave_one(self, app: Flask, owner: Person) -> None:
        second = recruit(app, owner, "paul", Role.OWNER)
        account = owner.account_id
        answers = at_once(*[attempt(app, members.leave, account, person.user_id) for person in (owner, second)])
        assert sorted(type(answer) for answer in answers if answer) == [LastOwner]
        assert list(roles(app, account).values()) == ["owner"]

    def test_owners_who_remove_demote_and_leave_in_a_ring_leave_an_owner(self, app: Flask, owner: Person) -> None:
        ring = [owner, *[recruit(app, owner, f"owner-{number}", Role.OWNER) for number in range(3)]]
        ids, account = [person.user_id for person in ring], owner.account_id
        answers = at_once(
            attempt(app, members.remove, account, ids[0], ids[1]),
            attempt(app, members.change_role, account, ids[1], ids[2], Role.MEMBER),
            attempt(app, members.remove, account, ids[2], ids[3]),
            attempt(app, members.change_role, account, ids[3], ids[0], Role.ADMIN),
            attempt(app, members.leave, account, ids[0]),
            attempt(app, members.leave, account, ids[2]),
        )
        assert all(answer is None or isinstance(answer, Forbidden | NotFound | LastOwner) for answer in answers)
        assert "owner" in roles(app, account).values()

    def test_a_link_opened_many_times_at_once_lets_one_in(self, app: Flask, owner: Person) -> None:
        secret = invite(app, owner, "nina@example.com")
        answers = at_once(*[attempt(app, invitations.accept_new, secret, PASSWORD) for _ in range(4)])
        assert sum(isinstance(answer, tuple) for answer in answers) == 1
        assert all(isinstance(answer, tuple | NotFound) for answer in answers)
        assert roles(app, owner.account_id) == {"olga": "owner", "nina": "member"}

    def test_signing_up_and_joining_at_once_make_one_person(self, app: Flask, owner: Person) -> None:
        secret = invite(app, owner, "nina@example.com")
        answers = at_once(
            attempt(app, invitations.accept_new, secret, PASSWORD),
            attempt(app, people.sign_up, "nina@example.com", PASSWORD, "Nina", "127.0.0.1"),
        )
        assert sorted(isinstance(answer, ValidationError) for answer in answers) == [False, True]
        assert user(app, "nina@example.com")

    def test_an_invitation_is_withdrawn_or_accepted_never_both(self, app: Flask, owner: Person) -> None:
        secret = invite(app, owner, "nina@example.com")
        waiting_id = do(app, invitations.waiting, owner.account_id)[0].id
        accepted, withdrawn = at_once(
            attempt(app, invitations.accept_new, secret, PASSWORD),
            attempt(app, invitations.withdraw, owner.account_id, owner.user_id, waiting_id),
        )
        assert isinstance(accepted, NotFound) != isinstance(withdrawn, NotFound)
        assert ("nina" in roles(app, owner.account_id)) == isinstance(withdrawn, NotFound)

    def test_an_address_is_invited_once(self, app: Flask, owner: Person) -> None:
        calls = [
            attempt(app, invitations.invite, owner.account_id, owner.user_id, "nina@example.com", Role.MEMBER)
            for _ in range(4)
        ]
        assert sum(answer is None for answer in at_once(*calls)) == 1
        assert len(mailbox.mails(app, "nina@example.com", "invitation")) == 1

    def test_no_token_survives_its_makers_removal(self, app: Flask, owner: Person) -> None:
        mia = recruit(app, owner, "mia", Role.ADMIN)
        parent = tokens.parse(f"Bearer {token_of(app, mia, 'read', 'tokens').token}", None)

        def by_page() -> Any:
            return tokens.create(account_id=owner.account_id, name="late", scopes=["read"], user_id=mia.user_id)

        def by_api() -> Any:
            caller = tokens.authenticate(parent, "tokens")
            return tokens.create(
                account_id=owner.account_id, name="late", scopes=["read"], creator=caller, user_id=caller.user_id
            )

        calls = [attempt(app, work) for work in (by_page, by_api) * 4]
        removal = attempt(app, members.remove, owner.account_id, owner.user_id, mia.user_id)
        answers = at_once(*calls[:4], removal, *calls[4:])
        refused = [answer for answer in answers if isinstance(answer, SpillwayError)]
        assert all(isinstance(answer, Forbidden | Unauthenticated) for answer in refused)
        with app.app_context(), database.transaction() as session:
            mine = select(Token).where(Token.user_id == mia.user_id, Token.revoked_at.is_(None))
            assert session.scalars(mine).all() == []


class TestPlaces:
    def test_by_name_with_role_and_state_and_nobody_elses(self, app: Flask, owner: Person) -> None:
        bob = factories.person(app, "bob@example.com")
        do(app, invitations.accept, invite(app, owner, "bob@example.com"), user(app, "bob@example.com"))
        do(app, accounts.close, owner.account_id, "over")
        assert [(place.name, place.role, place.is_closed) for place in do(app, members.places, bob.user_id)] == [
            ("Bob", Role.OWNER, False),
            ("Olga", Role.MEMBER, True),
        ]
