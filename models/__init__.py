"""Typed models, enums and constraints. Importing the package registers every table."""

from models import account, credit, operation, token, usage, user

__all__ = ["account", "credit", "operation", "token", "usage", "user"]
