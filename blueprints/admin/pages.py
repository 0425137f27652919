"""What operators see: where everything stands, and the catalog."""

from __future__ import annotations

from flask import Blueprint, flash, redirect, render_template, url_for
from werkzeug.wrappers import Response

import settings
from amounts import to_credits
from blueprints.auth import guard
from services import catalog as catalogs
from services import offers
from services.stripe import catalog as stripe_catalog

blueprint = Blueprint("admin_pages", __name__, url_prefix="/admin")


@blueprint.get("")
@guard.operator_required
def index() -> str:
    return render_template(
        "admin/index.html", state=catalogs.state(), findings=catalogs.lint_kept(), enabled=offers.payments_enabled()
    )


@blueprint.get("/catalog")
@guard.operator_required
def catalog() -> str:
    """From the mirror alone: the page is drawn whether Stripe answers or not."""
    env = settings.current()
    return render_template(
        "admin/catalog.html",
        state=catalogs.state(),
        findings=catalogs.lint_kept(),
        terms=catalogs.current(),
        enabled=offers.payments_enabled(),
        tag=env.stripe_product_tag,
        file=env.catalog_file,
        to_credits=to_credits,
    )


@blueprint.post("/catalog/sync")
@guard.operator_required
def sync_catalog() -> Response:
    result = stripe_catalog.sync()
    if result.error:
        flash(f"Not taken in, version {result.version} stays in force: {result.error}", "error")
    else:
        told = "taken in" if result.changed else "is in force already"
        flash(f"Version {result.version} {told}.", "success" if not result.findings else "warning")
    return redirect(url_for("admin_pages.catalog"), 303)
