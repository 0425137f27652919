"""Typed models, enums and constraints. Importing the package registers every table."""

from models import account, alert, catalog, credit, invitation, operation, outgoing, overage, stripe, token, usage, user

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
    "usage",
    "user",
]
