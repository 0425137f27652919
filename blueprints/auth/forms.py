"""The forms of signing up, logging in and passwords."""

from __future__ import annotations

from flask_wtf import FlaskForm
from wtforms import EmailField, Field, PasswordField, SelectField, StringField
from wtforms.validators import DataRequired, InputRequired, Length

from errors import ValidationError
from services.people import LONGEST_PASSWORD, SHORTEST_PASSWORD


def _new_password(label: str) -> PasswordField:
    size = Length(SHORTEST_PASSWORD, LONGEST_PASSWORD, f"{SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters.")
    return PasswordField(label, validators=[InputRequired("Choose a password."), size])


def _email() -> EmailField:
    return EmailField("E-mail", validators=[InputRequired("Your e-mail address."), Length(max=254)])


def strip(value: str | None) -> str | None:
    """A filter for names: one line, without spaces that mean nothing."""
    return " ".join(value.split()) if value else value


class SignupForm(FlaskForm):
    email = _email()
    password = _new_password("Password")
    account = StringField("Name of your team or product", filters=[strip], validators=[Length(max=200)])


class LoginForm(FlaskForm):
    email = _email()
    password = PasswordField("Password", validators=[InputRequired("Your password."), Length(max=LONGEST_PASSWORD)])


class ForgotForm(FlaskForm):
    email = _email()


class ResetForm(FlaskForm):
    password = _new_password("New password")


class PasswordForm(FlaskForm):
    current = PasswordField("Password now", validators=[InputRequired("Your password."), Length(max=LONGEST_PASSWORD)])
    new = _new_password("New password")


class AccountForm(FlaskForm):
    name = StringField("Name", filters=[strip], validators=[DataRequired("A name."), Length(max=200)])


class InviteForm(FlaskForm):
    email = EmailField("E-mail", validators=[InputRequired("An e-mail address."), Length(max=254)])
    role = SelectField("Role")


class JoinForm(FlaskForm):
    password = PasswordField(
        "Your password", validators=[InputRequired("Your password."), Length(max=LONGEST_PASSWORD)]
    )


class CloseForm(FlaskForm):
    name = StringField("Name of the account", validators=[InputRequired("Type the name to confirm."), Length(max=200)])


class EmptyForm(FlaskForm):
    """A button: only its CSRF token counts."""


def show(form: FlaskForm, error: ValidationError) -> None:
    """Put a service's complaints at the fields they are about; others go to the first field."""
    fields: dict[str, Field] = {field.name: field for field in form}
    first = next(iter(fields.values()))
    for path, messages in error.extra["errors"].items():
        field = fields.get(path, first)
        field.errors = [*field.errors, *messages]
