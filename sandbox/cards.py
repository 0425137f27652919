"""Stripe's test cards and bank accounts: what each does when it is saved and when it is charged."""

from dataclasses import dataclass
from typing import Literal

Answer = Literal["ok", "decline", "authenticate", "settle", "fail_later"]


@dataclass(frozen=True)
class Card:
    """`setup`, `charge`: what happens. A card that asks once does so unless it was authenticated when it was saved."""

    number: str
    title: str
    setup: Answer = "ok"
    charge: Answer = "ok"
    code: str = "card_declined"
    decline_code: str | None = "generic_decline"
    message: str = "Your card was declined."
    brand: str = "visa"
    asks_once: bool = False
    disputed: bool = False

    @property
    def is_bank(self) -> bool:
        return self.charge in ("settle", "fail_later")


CARDS = (
    Card("4242424242424242", "Visa, pays"),
    Card("5555555555554444", "Mastercard, pays", brand="mastercard"),
    Card("4000000000000002", "Declined", "decline", "decline"),
    Card(
        "4000000000009995",
        "Insufficient funds",
        "decline",
        "decline",
        decline_code="insufficient_funds",
        message="Your card has insufficient funds.",
    ),
    Card(
        "4000000000000069",
        "Expired",
        "decline",
        "decline",
        code="expired_card",
        decline_code=None,
        message="Your card has expired.",
    ),
    Card("4000000000000341", "Can be saved, every charge is declined", "ok", "decline"),
    Card(
        "4000002500003155", "Asks for 3-D Secure unless saved with it", "authenticate", "authenticate", asks_once=True
    ),
    Card("4000002760003184", "Always asks for 3-D Secure", "authenticate", "authenticate"),
    Card("4000000000000259", "Pays, and is disputed at once", disputed=True),
    Card("000123456789", "Bank debit, paid after some days", "ok", "settle", brand="bank"),
    Card(
        "000111111116",
        "Bank debit, fails after some days",
        "ok",
        "fail_later",
        code="account_closed",
        decline_code=None,
        message="The customer's bank account has been closed.",
        brand="bank",
    ),
)
BY_NUMBER = {card.number: card for card in CARDS}
# The ids that Stripe offers for test code.
BY_ID = {
    "pm_card_visa": "4242424242424242",
    "pm_card_mastercard": "5555555555554444",
    "pm_card_visa_chargeDeclined": "4000000000000002",
    "pm_card_chargeDeclined": "4000000000000002",
    "pm_card_chargeDeclinedInsufficientFunds": "4000000000009995",
    "pm_card_visa_chargeDeclinedInsufficientFunds": "4000000000009995",
    "pm_card_chargeDeclinedExpiredCard": "4000000000000069",
    "pm_card_chargeCustomerFail": "4000000000000341",
    "pm_card_authenticationRequiredOnSetup": "4000002500003155",
    "pm_card_authenticationRequired": "4000002760003184",
    "pm_card_createDispute": "4000000000000259",
    "pm_usBankAccount_success": "000123456789",
    "pm_usBankAccount_accountClosed": "000111111116",
}
