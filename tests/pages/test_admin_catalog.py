"""The operator's view of the catalog: what is in force, what is wrong, since when, and the button."""

from __future__ import annotations

import pytest
from flask import Flask
from flask.testing import FlaskClient

from services import people
from tests import factories, html
from tests.stripe_world import StripeWorld


def operators_client(app: Flask) -> FlaskClient:
    client = factories.person(app, "olga@example.com").client
    with app.app_context():
        people.add_operator("olga@example.com")
    return client


def test_the_file_its_mistakes_and_the_button(sqlite_app: Flask) -> None:
    file = sqlite_app.config["SETTINGS"].catalog_file
    client = operators_client(sqlite_app)
    assert "version 1 from the file" in html.read(client.get("/admin")).text
    file.write_text('[product]\nsignup = 5\n[[prices]]\nid = "p"\nprice_type = "base"\n')
    answer = html.post(client, "/admin/catalog/sync", form="/admin/catalog")
    assert (answer.status_code, answer.headers["Location"]) == (303, "/admin/catalog")
    text = html.read(client.get("/admin/catalog")).text
    for words in ("Version 2 taken in.", str(file), "unknown key 'signup'", "tier is missing", "[product]"):
        assert words in text
    file.write_text("[product\n")
    html.post(client, "/admin/catalog/sync", form="/admin/catalog")
    text = html.read(client.get("/admin/catalog")).text
    assert "Not taken in, version 2 stays in force" in text
    assert "The catalog could not be read since" in text
    assert "1 mistake" not in html.read(client.get("/admin")).text
    assert "2 mistakes" in html.read(client.get("/admin")).text
    assert "out of reach since" in html.read(client.get("/admin")).text


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_stripe_in_and_out_of_reach(stripe: StripeWorld) -> None:
    client = operators_client(stripe.app)
    assert "No catalog has been read yet" in html.read(client.get("/admin/catalog")).text
    stripe.seed()
    text = html.read(client.get("/admin/catalog")).text
    assert "product=spillway" in text
    assert stripe.prices["team_month"] in text
    assert "$49.00" in text
    stripe.sandbox.stop()
    assert html.post(client, "/admin/catalog/sync", form="/admin/catalog").status_code == 303
    text = html.read(client.get("/admin/catalog")).text
    assert "The catalog could not be read since" in text
    assert stripe.prices["team_month"] in text


def test_it_is_for_operators_alone(sqlite_app: Flask) -> None:
    alice = factories.person(sqlite_app, "alice@example.com")
    assert alice.client.get("/admin/catalog").status_code == 403
    assert "/admin" not in html.read(alice.client.get("/usage")).addresses
    assert html.post(alice.client, "/admin/catalog/sync", form="/settings").status_code == 403
    assert sqlite_app.test_client().get("/admin").headers["Location"] == "/login?next=/admin"
