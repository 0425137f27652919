"""Typed models, enums and constraints. Importing the package registers every table."""

from models import account, catalog, credit, invitation, operation, stripe, token, usage, user

__all__ = ["account", "catalog", "credit", "invitation", "operation", "stripe", "token", "usage", "user"]
