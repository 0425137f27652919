"""The least that Flask can do: what the ratios are divided by."""

from __future__ import annotations

from flask import Flask

app = Flask(__name__)


@app.get("/bare")
def bare() -> dict[str, str]:
    """A small JSON object; nothing is read, checked or logged."""
    return {"status": "ok"}
