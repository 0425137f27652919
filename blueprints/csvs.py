"""CSV answers: sent as they are made, safe to open in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import chain
from typing import Any

from flask import Response, stream_with_context

import clock
from extensions import db

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def answer(name: str, columns: Sequence[str], pieces: Iterable[Sequence[Sequence[Any]]]) -> Response:
    """A download `name` of a line of `columns` and the rows of `pieces`.

    The first piece is made before the answer begins, so that what fails there is still answered as an error.
    """
    rest = iter(pieces)
    first = next(rest, [])
    response = Response(stream_with_context(_lines(columns, chain([first], rest))), mimetype="text/csv")
    response.headers["Content-Disposition"] = f'attachment; filename="{name}"'
    return response


def _lines(columns: Sequence[str], pieces: Iterable[Sequence[Sequence[Any]]]) -> Iterator[str]:
    db.session.rollback()  # a slow reader must not keep a connection
    head: Sequence[Sequence[Any]] = [columns]
    for rows in chain([head], pieces):
        text = io.StringIO()
        csv.writer(text).writerows([cell(value) for value in row] for row in rows)
        yield text.getvalue()


def cell(value: Any) -> str:
    """One cell: numbers plainly, times as RFC 3339, and no text that a spreadsheet would take for a formula."""
    if value is None:
        return ""
    if isinstance(value, int | Decimal):
        return f"{value:f}" if isinstance(value, Decimal) else str(value)
    if isinstance(value, datetime):
        return clock.rfc3339(value)
    text = str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
