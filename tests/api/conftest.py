"""Shorthands for tests of the API that have nothing to do with the database."""

from __future__ import annotations

import pytest
from flask import Flask

from tests import factories


@pytest.fixture
def service(sqlite_app: Flask) -> factories.Api:
    """The API as a service token with every scope sees it, on SQLite alone."""
    return factories.Api(sqlite_app, factories.service_token(sqlite_app))
