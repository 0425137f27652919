"""The usage page, and what one record did."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from flask import Blueprint, redirect, render_template, request, url_for
from flask_login import current_user
from werkzeug.wrappers import Response

import clock
import settings
from blueprints.auth import guard
from blueprints.fields import Text
from blueprints.usage import chart
from blueprints.usage.schemas import SummaryQuery
from blueprints.usage.words import INPUTS, REASONS
from errors import ValidationError
from models.account import Account
from services import balances, catalog, explain, forecast, periods, records, summaries
from services.records import Filters

blueprint = Blueprint("usage_pages", __name__)

RANGES = {
    "current": "This period",
    "previous": "Previous period",
    "30d": "Last 30 days",
    "90d": "Last 90 days",
    "custom": "Own range",
}
_RECENT = 20


class _PageQuery(SummaryQuery):
    """The page's form; a link with a value it does not know falls back to the default view."""

    range = Text(load_default="current")


@blueprint.get("/")
@guard.public
def home() -> Response | str:
    if current_user.is_authenticated:
        return redirect(url_for("usage_pages.index"))
    return render_template("home.html")


@blueprint.get("/usage")
@guard.member_required
def index() -> str:
    account = guard.current_account()
    balance = balances.balance(account.id)  # first: it may begin the account's next period
    view, problem = _view(account)
    summary = summaries.summary(account.id, view["start"], view["end"], view["interval"], view["by"])
    recent = records.listing(account.id, Filters(), _RECENT)
    return render_template(
        "usage/index.html",
        account=account,
        balance=balance,
        credit_name=catalog.current().credit_name,
        view=view,
        problem=problem,
        ranges=RANGES,
        summary=summary,
        average=_average(summary["total"]["credits"], view["start"], view["end"]),
        heading=forecast.stats(account.id),
        charts=[chart.layout(summary, f"no {view['by']}", width) for width in (chart.WIDE, chart.NARROW)],
        records=[records.detail(record) for record in recent],
        api=settings.current().public_url,
    )


def _view(account: Account) -> tuple[dict[str, Any], str | None]:
    """What the chart shows, from the query; with a message where the query made no sense."""
    values = {name: value for name, value in request.args.items() if value}
    try:
        query = _PageQuery().load_strict(values)
        start, end = _bounds(account, query)
        summaries.buckets(start, end, query["interval"])
        problem = None
    except ValidationError as error:
        query = {"range": "current", "interval": "day", "by": "operation"}
        start, end = _bounds(account, query)
        problem = error.detail
    return {**query, "start": start, "end": end}, problem


def _average(used: int | Decimal, start: datetime, end: datetime) -> Decimal:
    """Credits a day over the part of the range that is over, at least one day, to two decimals."""
    days = Decimal((min(end, clock.now()) - start) // timedelta(seconds=1)) / 86400
    return (used / max(Decimal(1), days)).quantize(Decimal("0.01"), ROUND_HALF_UP)


def _bounds(account: Account, query: dict[str, Any]) -> tuple[datetime, datetime]:
    now = clock.now()
    tomorrow = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    chosen = query["range"]
    if chosen == "custom":
        if "start" not in query or "end" not in query:
            raise ValidationError({"from": ["An own range needs both days."]})
        try:
            return query["start"], query["end"] + timedelta(days=1)
        except OverflowError:
            raise ValidationError({"to": ["There is no day after it."]}) from None
    if chosen in ("30d", "90d"):
        return tomorrow - timedelta(days=int(chosen[:-1])), tomorrow
    if chosen == "previous":
        return periods.month_period(account.period_start, account.period_start - timedelta(microseconds=1))
    if chosen != "current":
        raise ValidationError({"range": ["No such range."]})
    return account.period_start, min(account.period_end, tomorrow)


@blueprint.get("/usage/<record_id>")
@guard.member_required
def record(record_id: str) -> str:
    return render_template(
        "usage/record.html",
        story=explain.explain(record_id, guard.current_account().id),
        credit_name=catalog.current().credit_name,
        reasons=REASONS,
        inputs=INPUTS,
    )
