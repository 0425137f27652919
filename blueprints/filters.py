"""How amounts and times look on pages."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from flask import Flask
from markupsafe import Markup

import clock
import money


def amount(value: int | Decimal | None) -> str:
    """`1,234.5`: thousands separated, at most 6 decimals, none that say nothing."""
    if value is None:
        return "–"
    number = Decimal(value)
    if number == number.to_integral_value():
        return f"{int(number):,}"
    return f"{number.normalize():,f}"


def short(value: int | Decimal) -> str:
    """As `amount`; what has more than 8 decimals is rounded and says so."""
    rounded = round(Decimal(value), 8)
    return amount(value) if rounded == value else f"≈ {amount(rounded)}"


def change(value: int | Decimal) -> str:
    """`+1,234.5` or `−0.25`, with a true minus sign."""
    return f"−{amount(-value)}" if value < 0 else f"+{amount(value)}" if value else "0"


def when(value: datetime | None, only: str = "") -> Markup:
    """A time in UTC that the page's script shows in the reader's zone; `only="date"` leaves the hour out.

    `only="utc"` stays as it is, for lists whose bounds are in UTC.
    """
    if value is None:
        return Markup("–")
    stamp = value.strftime("%Y-%m-%dT%H:%M:%SZ")
    if only == "utc":
        return Markup('<time datetime="{}">{}</time>').format(stamp, value.strftime("%Y-%m-%d %H:%M"))
    utc = value.strftime("%Y-%m-%d" if only == "date" else "%Y-%m-%d %H:%M UTC")
    title = value.strftime("%Y-%m-%d %H:%M UTC")
    return Markup('<time datetime="{}" title="{}" data-only="{}">{}</time>').format(stamp, title, only, utc)


def register(app: Flask) -> None:
    app.jinja_env.filters.update(
        credits=amount, change=change, money=money.show, short=short, stamp=clock.rfc3339, when=when
    )
