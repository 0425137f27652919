"""The forms of caps, alerts, overage and auto top-up. Money is typed in major units."""

from __future__ import annotations

from typing import Any

from flask_wtf import FlaskForm
from wtforms import BooleanField, Field, SelectField, StringField
from wtforms.fields.choices import SelectChoice
from wtforms.validators import DataRequired, InputRequired, Length, Optional
from wtforms.validators import ValidationError as FieldError

import amounts
import money
from blueprints.auth import forms
from errors import ValidationError
from services import agreed, catalog
from services.stripe import orders, quotes


class CapForm(FlaskForm):
    scope = SelectField(
        "For",
        choices=[
            SelectChoice("account", "the whole account"),
            SelectChoice("token", "a token"),
            SelectChoice("subject", "a subject"),
        ],
    )
    key = StringField("Token id or subject", filters=[forms.strip], validators=[Optional(), Length(max=255)])
    window = SelectField("Per", choices=[SelectChoice("day", "day (UTC)"), SelectChoice("period", "period")])
    credits = StringField("Credits at most", filters=[forms.strip], validators=[DataRequired(), Length(max=30)])

    locked = BooleanField("Lock it: only operators can change it then")

    def validate_credits(self, field: Field) -> None:
        try:
            _micros(field.data)
        except ValueError as error:
            raise FieldError(str(error)) from None

    @property
    def cap(self) -> dict[str, Any]:
        return {
            "scope": self.scope.data,
            "key": (self.key.data or None) if self.scope.data != agreed.ACCOUNT else None,
            "window": self.window.data,
            "credits": _micros(self.credits.data),
            "locked": None,
        }


class ThresholdsForm(FlaskForm):
    thresholds = StringField("Percent of the allowance", filters=[forms.strip], validators=[Length(max=100)])

    def validate_thresholds(self, field: Field) -> None:
        try:
            self.numbers = [int(part) for part in (field.data or "").replace(" ", "").split(",") if part]
        except ValueError:
            self.numbers = [0]
        if not all(1 <= number <= 100 for number in self.numbers):
            raise FieldError("Numbers from 1 to 100 with commas between them, such as 70, 90, 100; empty for none.")


def _micros(typed: str) -> int:
    return amounts.to_micros(amounts.parse(typed))


class _MoneyForm(FlaskForm):
    """A form with money in `currency`. `problem`: what is wrong with no field of it."""

    currency = "usd"
    problem: str | None = None

    def _minor(self, field: Field) -> int:
        try:
            return money.typed(field.data or "", self.currency)
        except ValueError as error:
            raise FieldError(str(error)) from None


def _money(label: str) -> StringField:
    return StringField(label, filters=[forms.strip], validators=[InputRequired("How much?"), Length(max=20)])


class OverageForm(_MoneyForm):
    cap_amount = _money("At most, per period")

    def validate_cap_amount(self, field: Field) -> None:
        self.cap = self._minor(field)

    @property
    def wanted(self) -> dict[str, Any]:
        return {"cap_amount": self.cap}


class TopUpForm(_MoneyForm):
    """`says` is what it comes to, once everything is typed well."""

    below = StringField("When fewer credits are left than", filters=[forms.strip], validators=[Length(max=30)])
    credits = StringField("Buy so many", id="top-up-credits", filters=[forms.strip], validators=[Length(max=30)])
    monthly_ceiling = _money("Pay at most, each calendar month")
    cost = 0
    says: str | None = None

    def validate_below(self, field: Field) -> None:
        self.micros_below = _amount(field)
        if not self.micros_below:
            raise FieldError("Must be more than nothing: credits are bought when fewer are left.")

    def validate_credits(self, field: Field) -> None:
        self.micros = _amount(field)
        try:
            order = orders.find(credits=self.micros)
        except ValidationError as error:
            raise FieldError(quotes.told(error)) from None
        offer = next(one for one in catalog.current().credit_prices if one.price == order.price)
        self.cost = orders.total(offer, order.quantity or 1)

    def validate_monthly_ceiling(self, field: Field) -> None:
        self.ceiling = self._minor(field)
        if self.ceiling < self.cost:
            raise FieldError(f"One purchase is {money.show(self.cost, self.currency)} already.")
        if self.cost:
            times = self.ceiling // self.cost
            often = "once" if times == 1 else f"{times:,} times"
            self.says = f"{money.show(self.cost, self.currency)} each time before taxes, {often} a month at most."

    @property
    def wanted(self) -> dict[str, Any]:
        return {"below": self.micros_below, "credits": self.micros, "monthly_ceiling": self.ceiling}


def _amount(field: Field) -> int:
    try:
        return _micros(field.data or "")
    except ValueError as error:
        raise FieldError(str(error) if field.data else "How many?") from None
