"""Typed models, enums and constraints. Importing the package registers every table."""

from models import (
    account,
    alert,
    catalog,
    credit,
    invitation,
    operation,
    outgoing,
    overage,
    stripe,
    token,
    top_up,
    usage,
    user,
)

__all__ = [
    "account",
    "alert",
    "catalog",
    "credit",
    "invitation",
    "operation",
    "outgoing",
    "overage",
    "stripe",
    "token",
    "top_up",
    "usage",
    "user",
]
