"""The application, top to bottom: settings, extensions, pages and API, errors, commands."""

from __future__ import annotations

from datetime import timedelta

import click
from flask import Flask

import cli
import clock
import database
import extensions
import log
import metrics
from blueprints import docs, filters, health, navigation, openapi, security, wire
from blueprints import metrics as metrics_page
from blueprints.accounts import api as accounts_api
from blueprints.admin import mails as admin_mails
from blueprints.admin import outgoing as admin_outgoing
from blueprints.admin import pages as admin_pages
from blueprints.auth import accounts as account_pages
from blueprints.auth import guard
from blueprints.auth import invitations as invitation_pages
from blueprints.auth import members as members_pages
from blueprints.auth import pages as auth_pages
from blueprints.checkout import api as checkout_api
from blueprints.checkout import billing as billing_pages
from blueprints.checkout import change_pages
from blueprints.checkout import pages as checkout_pages
from blueprints.controls import alerts_api, notifications
from blueprints.controls import api as controls_api
from blueprints.controls import pages as controls_pages
from blueprints.pricing import api as pricing_api
from blueprints.pricing import pages as pricing_pages
from blueprints.subscription import api as subscription_api
from blueprints.subscription import changes_api
from blueprints.tokens import api as tokens_api
from blueprints.tokens import pages as tokens_pages
from blueprints.usage import api as usage_api
from blueprints.usage import pages as usage_pages
from blueprints.usage import statement_api, statement_pages
from blueprints.webhooks import stripe as stripe_webhooks
from services import catalog, people
from settings import Settings, SettingsError
from website import Website


def create_app(settings: Settings | None = None) -> Website:
    """Build the app. Without `settings` they are read from the environment; a wrong one ends the process."""
    settings = settings or _settings_or_exit()
    app = Website(__name__, instance_path=str(settings.instance_path))
    configure(app, settings)
    app.url_map.merge_slashes = False  # a redirect to the tidy path would name the host that was asked for
    log.configure()
    clock.configure(settings.clock_file)

    # First, so that what an extension refuses is counted, numbered and logged too.
    metrics.register(app)
    wire.register(app)
    log.register(app)
    extensions.db.init_app(app)
    extensions.migrate.init_app(app, extensions.db)
    extensions.login_manager.init_app(app)
    extensions.csrf.init_app(app)
    extensions.bootstrap.init_app(app)
    database.configure(app)

    security.register(app)
    guard.register(app)
    filters.register(app)
    navigation.register(app)
    apis = (
        stripe_webhooks,
        subscription_api,
        changes_api,
        usage_api,
        statement_api,
        controls_api,
        alerts_api,
        checkout_api,
        pricing_api,
    )
    for module in (*apis, accounts_api, tokens_api, openapi):
        app.register_blueprint(module.blueprint)
        extensions.csrf.exempt(module.blueprint)
    for module in (auth_pages, account_pages, members_pages, invitation_pages):
        app.register_blueprint(module.blueprint)
    for module in (
        usage_pages,
        statement_pages,
        tokens_pages,
        controls_pages,
        notifications,
        admin_mails,
        admin_outgoing,
        billing_pages,
        change_pages,
        checkout_pages,
        pricing_pages,
        admin_pages,
        docs,
        health,
        metrics_page,
    ):
        app.register_blueprint(module.blueprint)
    app.register_blueprint(notifications.one_click_blueprint)
    extensions.csrf.exempt(notifications.one_click_blueprint)
    cli.register(app)
    guard.check(app)
    return app


def configure(app: Flask, settings: Settings) -> None:
    """Flask's own configuration, derived from ours."""
    app.config.update(
        SETTINGS=settings,
        SECRET_KEY=settings.secret_key,
        SQLALCHEMY_DATABASE_URI=settings.database_url,
        SQLALCHEMY_ENGINE_OPTIONS=database.engine_options(settings.database_url, settings.web_threads),
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_SECURE=settings.public_url.startswith("https://"),
        BOOTSTRAP_SERVE_LOCAL=True,
        PERMANENT_SESSION_LIFETIME=timedelta(days=14),
        WTF_CSRF_TIME_LIMIT=None,
        MAX_CONTENT_LENGTH=wire.BODY_LIMIT,
    )


def prepare_to_serve(app: Flask) -> None:
    """Once before the workers are forked: take the catalog file in, and tell a fresh installation how to begin.

    Stripe is not asked here: one of the workers does that while all of them serve.
    """
    with app.app_context():
        if app.config["SETTINGS"].stripe_secret_key is None:
            catalog.sync()
        link = people.setup_link()
        if link is not None:
            click.echo(f"\nThere is no operator yet. Open this link once to begin:\n\n    {link}\n")
        extensions.db.session.remove()
        extensions.db.engine.dispose()  # a connection must not be shared by two processes


def _settings_or_exit() -> Settings:
    try:
        return Settings.from_env()
    except SettingsError as error:
        click.echo(str(error), err=True)
        raise SystemExit(2) from None
