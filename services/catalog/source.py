"""What a source says; and the catalog file: TOML in, the shape of Stripe's metadata and price objects out."""

from __future__ import annotations

import os
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from services.catalog.layers import LOCAL, Layer
from services.catalog.reader import as_text
from services.catalog.terms import Finding
from services.catalog.vocabulary import PRODUCT

FILE = "catalog file"
"""The name findings give the file as a whole."""

DEFAULT = Path(__file__).with_name("default.toml")

_PRICE_FIELDS = (
    "id",
    "active",
    "currency",
    "unit_amount",
    "unit_amount_decimal",
    "billing_scheme",
    "tiers",
    "tiers_mode",
    "transform_quantity",
)
_RECURRING_FIELDS = ("interval", "interval_count", "usage_type", "meter")
_SEPARATORS = {"features": ";", "alert_thresholds": ","}


class BrokenCatalog(Exception):
    """The source can not be read at all; `finding` says where and how to cure it."""

    def __init__(self, message: str, cure: str) -> None:
        self.finding = Finding(FILE, message, cure)
        super().__init__(str(self.finding))


@dataclass(frozen=True)
class Source:
    """Product metadata in layers, the strongest first; prices in the shape of Stripe's; and mistakes in neither."""

    layers: Sequence[Layer] = ()
    prices: Sequence[dict[str, Any]] = ()
    findings: Sequence[Finding] = field(default_factory=list)

    @property
    def product(self) -> Mapping[str, Any]:
        """The settings of a source that has one product, such as the file."""
        return self.layers[0][1] if self.layers else {}


def read(path: Path) -> Source:
    """The catalog file's content. Raises BrokenCatalog when it is missing, unreadable or not TOML."""
    try:
        text = path.read_bytes().decode()
    except OSError as error:
        raise BrokenCatalog(f"{path}: {error.strerror}", "put the file back, or correct CATALOG_FILE") from error
    except UnicodeDecodeError as error:
        raise BrokenCatalog(f"{path} is not UTF-8 text", "save it as UTF-8") from error
    return loads(text)


def loads(text: str) -> Source:
    """The content of a catalog file. Raises BrokenCatalog, with the line, where it is not TOML."""
    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        where = str(error).replace("at end of document", f"at the end, line {len(text.splitlines())}")
        raise BrokenCatalog(f"not valid TOML: {where}", "correct that line; text values need quotes") from error
    except (ArithmeticError, RecursionError, ValueError) as error:
        raise BrokenCatalog("not usable TOML: a number or a nesting is too large", "correct it") from error
    product, prices, local = document.pop("product", {}), document.pop("prices", []), document.pop("local", {})
    for name, table in (("product", product), ("local", local)):
        if not isinstance(table, dict):
            raise BrokenCatalog(f"{name} is not a table", f"begin it with a line [{name}]")
    if not isinstance(prices, list) or not all(isinstance(price, dict) for price in prices):
        raise BrokenCatalog("prices is not a list of tables", "begin each price with a line [[prices]]")
    unknown = [
        Finding(FILE, f"unknown top-level key '{key[:60]}'", "keys belong under [product] or a [[prices]]")
        for key in document
    ]
    layers = [(PRODUCT, _as_metadata(product)), *([(LOCAL, _as_metadata(local))] if local else [])]
    return Source(layers, [_as_stripe(price) for price in prices], unknown)


def write_default(path: Path) -> None:
    """Put the commented default there unless a file exists; never half-written, never over another's."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".catalog-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(DEFAULT.read_bytes())
            os.fchmod(file.fileno(), 0o644)
        os.link(name, path)  # unlike a rename, this fails where somebody was quicker
    except FileExistsError:
        pass
    finally:
        Path(name).unlink()


def _as_stripe(price: Mapping[str, Any]) -> dict[str, Any]:
    """A flat table of the file as a price object: its own fields, `recurring`, and the rest as metadata."""
    shaped: dict[str, Any] = {key: _plain(price[key]) for key in _PRICE_FIELDS if key in price}
    recurring = {key: _plain(price[key]) for key in _RECURRING_FIELDS if key in price}
    if recurring:
        shaped["recurring"] = recurring
    rest = {key: value for key, value in price.items() if key not in (*_PRICE_FIELDS, *_RECURRING_FIELDS)}
    return {**shaped, "metadata": _as_metadata(rest)}


def _as_metadata(table: Mapping[str, Any]) -> dict[str, Any]:
    """All values as text, as Stripe would hold them; what can not be is left for the parser to report."""
    found: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, list) and key in _SEPARATORS:
            text: str | None = _SEPARATORS[key].join(as_text(part) or "" for part in value)
        else:
            text = as_text(value)
        found[key] = _plain(value) if text is None else text
    return found


def _plain(value: Any) -> Any:
    """JSON can hold it: decimals, dates and times become text."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return as_text(value) or str(value)
