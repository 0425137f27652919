"""Every setting, typed, read once from the environment and `instance/.env`. A wrong value stops the start."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TypeVar
from urllib.parse import SplitResult, quote, urlsplit

from dotenv import dotenv_values
from flask import current_app
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

import clock
from amounts import to_micros

T = TypeVar("T")
ROOT = Path(__file__).parent


class SettingsError(ValueError):
    """One line: the setting's name, what is wrong with it and what is right. Never holds a secret's value."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Amounts are credits as Decimal; days are whole days."""

    instance_path: Path
    database_url: str = field(repr=False)
    secret_key: str = field(repr=False)
    host: str = "127.0.0.1"
    port: int = 8000
    public_url: str = "http://127.0.0.1:8000"
    web_workers: int = 2
    web_threads: int = 16
    scheduler: str = "embedded"
    clock_file: Path | None = None
    catalog_file: Path
    credit_name: str = "credits"
    signup_credits: Decimal = Decimal(100)
    signup_grant: str = "immediate"
    free_monthly_credits: Decimal = Decimal(0)
    grace_days: int = 7
    grace_attempts: int = 3
    suspend_days: int = 14
    alert_thresholds: tuple[int, ...] = (70, 90, 100)
    settle_unfunded: bool = False
    allow_account_void: bool = False
    operator_only_fields: frozenset[str] = frozenset()
    webhook_private_networks: bool = False
    mail_url: str | None = field(default=None, repr=False)
    allowed_return_hosts: frozenset[str] = frozenset()
    metrics_token: str | None = field(default=None, repr=False)
    stripe_secret_key: str | None = field(default=None, repr=False)
    stripe_webhook_secret: str | None = field(default=None, repr=False)
    stripe_publishable_key: str | None = None
    stripe_product_tag: str = "spillway"
    stripe_api_base: str | None = None
    stripe_promotion_codes: bool = False
    stripe_automatic_tax: bool = False

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Read everything; the environment wins over `instance/.env`. Creates the instance folder.

        Raises SettingsError for the first wrong value.
        """
        instance = _instance(environ)
        read = _Reader({**_dotenv(instance / ".env"), **environ})
        port = read("PORT", _port, 8000)
        host = read("HOST", _text, "127.0.0.1")
        mail_url = read("MAIL_URL", _mail_url, None)
        settings = cls(
            instance_path=instance,
            database_url=read("DATABASE_URL", _database_url, f"sqlite:///{quote(str(instance / 'spillway.db'))}"),
            secret_key=read("SECRET_KEY", _secret, None) or _kept_secret(instance / "secret_key"),
            host=host,
            port=port,
            public_url=read("PUBLIC_URL", _public_url, f"http://127.0.0.1:{port}"),
            web_workers=read("WEB_WORKERS", _whole(1, 256), 2),
            web_threads=read("WEB_THREADS", _whole(1, 256), 16),
            scheduler=read("SCHEDULER", _choice("embedded", "off"), "embedded"),
            clock_file=read("CLOCK_FILE", _clock_file, None),
            catalog_file=read("CATALOG_FILE", Path, instance / "catalog.toml"),
            credit_name=read("CREDIT_NAME", _text, "credits"),
            signup_credits=read("SIGNUP_CREDITS", _credits, Decimal(100)),
            signup_grant=read(
                "SIGNUP_GRANT", _choice("immediate", "verified"), "verified" if mail_url else "immediate"
            ),
            free_monthly_credits=read("FREE_MONTHLY_CREDITS", _credits, Decimal(0)),
            grace_days=read("GRACE_DAYS", _whole(0, 365), 7),
            grace_attempts=read("GRACE_ATTEMPTS", _whole(1, 100), 3),
            suspend_days=read("SUSPEND_DAYS", _whole(0, 365), 14),
            alert_thresholds=read("ALERT_THRESHOLDS", _thresholds, (70, 90, 100)),
            settle_unfunded=read("SETTLE_UNFUNDED", _switch, False),
            allow_account_void=read("ALLOW_ACCOUNT_VOID", _switch, False),
            operator_only_fields=read("OPERATOR_ONLY_FIELDS", _usage_fields, frozenset()),
            webhook_private_networks=read("WEBHOOK_PRIVATE_NETWORKS", _switch, False),
            mail_url=mail_url,
            allowed_return_hosts=read("ALLOWED_RETURN_HOSTS", _names, frozenset()),
            metrics_token=read("METRICS_TOKEN", _secret, None),
            stripe_secret_key=read("STRIPE_SECRET_KEY", _secret, None),
            stripe_webhook_secret=read("STRIPE_WEBHOOK_SECRET", _secret, None),
            stripe_publishable_key=read("STRIPE_PUBLISHABLE_KEY", _text, None),
            stripe_product_tag=read("STRIPE_PRODUCT_TAG", _text, "spillway"),
            stripe_api_base=read("STRIPE_API_BASE", _public_url, None),
            stripe_promotion_codes=read("STRIPE_PROMOTION_CODES", _switch, False),
            stripe_automatic_tax=read("STRIPE_AUTOMATIC_TAX", _switch, False),
        )
        settings._check_together()
        return settings

    def _check_together(self) -> None:
        if self.clock_file and (self.stripe_secret_key or "").startswith(("sk_live_", "rk_live_")):
            raise SettingsError("CLOCK_FILE: a moved clock must never meet a live Stripe key; unset one of the two")
        if self.suspend_days < self.grace_days:
            raise SettingsError("SUSPEND_DAYS: must not be less than GRACE_DAYS")


def current() -> Settings:
    """The running app's settings."""
    settings: Settings = current_app.config["SETTINGS"]
    return settings


class _Reader:
    """Reads `NAME`, or the file that `NAME_FILE` names, and names the setting in every complaint."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def __call__(self, name: str, parse: Callable[[str], T], default: T) -> T:
        value = self._value(name)
        if value is None:
            return default
        try:
            return parse(value)
        except (ValueError, ArithmeticError, OSError) as error:
            raise SettingsError(f"{name}: {error}") from None

    def _value(self, name: str) -> str | None:
        value = (self._values.get(name) or "").strip()
        path = (self._values.get(f"{name}_FILE") or "").strip()
        if value and path:
            raise SettingsError(f"{name}: set {name} or {name}_FILE, not both")
        if path:
            try:
                value = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError):
                raise SettingsError(f"{name}_FILE: the file can not be read") from None
        return value or None


def _instance(environ: Mapping[str, str]) -> Path:
    path = Path(environ.get("INSTANCE_PATH") or ROOT / "instance").absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError:
        raise SettingsError(f"INSTANCE_PATH: the folder {path} can not be made") from None
    return path


def _dotenv(path: Path) -> dict[str, str]:
    try:
        return {name: value or "" for name, value in dotenv_values(path, interpolate=False).items()}
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"INSTANCE_PATH: {path} can not be read") from None


def _kept_secret(path: Path) -> str:
    """The key kept in the instance folder, made on the first start; of two that make it at once, one wins."""
    try:
        if not path.exists():
            draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(48))
            with suppress(FileExistsError):
                os.link(draft, path)
            draft.unlink()
        kept = path.read_text().strip()
    except (OSError, UnicodeDecodeError):
        raise SettingsError(f"SECRET_KEY: unset, and {path} can not be written or read") from None
    if not kept:
        raise SettingsError(f"SECRET_KEY: unset, and {path} is empty; delete that file")
    return kept


def _text(value: str) -> str:
    if not value.isprintable() or len(value) > 200:
        raise ValueError("must be one line of at most 200 characters")
    return value


def _secret(value: str) -> str:
    if not value.isprintable():
        raise ValueError("must be one line")
    return value


def _port(value: str) -> int:
    return _whole(1, 65535)(value)


def _whole(low: int, high: int) -> Callable[[str], int]:
    def parse(value: str) -> int:
        if not re.fullmatch(r"[0-9]{1,9}", value, re.ASCII) or not low <= int(value) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(value)

    return parse


def _choice(*allowed: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in allowed:
            raise ValueError(f"must be one of {', '.join(allowed)}")
        return value

    return parse


def _switch(value: str) -> bool:
    return _choice("0", "1")(value) == "1"


def _credits(value: str) -> Decimal:
    try:
        number = Decimal(value)
    except InvalidOperation:
        raise ValueError("must be a number of credits") from None
    to_micros(number)
    return number


def _thresholds(value: str) -> tuple[int, ...]:
    try:
        numbers = tuple(sorted({int(part) for part in value.split(",")}))
    except ValueError:
        numbers = ()
    if not numbers or not all(1 <= number <= 100 for number in numbers):
        raise ValueError("must be percentages from 1 to 100 such as 70,90,100")
    return numbers


def _names(value: str) -> frozenset[str]:
    return frozenset(name.strip().lower() for name in value.split(",") if name.strip())


_USAGE_FIELDS = frozenset(
    [
        "credits",
        "operation",
        "quantity",
        "llm_provider",
        "llm_model",
        "prompt_tokens",
        "completion_tokens",
        "total_tokens",
        "actual_cost",
        "success",
        "retry",
        "source",
        "subject",
        "properties",
        "occurred_at",
        "enforce",
    ]
)


def _usage_fields(value: str) -> frozenset[str]:
    names = _names(value)
    if names - _USAGE_FIELDS:
        raise ValueError(f"no such usage field: {', '.join(sorted(names - _USAGE_FIELDS))}")
    return names


def _public_url(value: str) -> str:
    parts = urlsplit(value)
    wrong = parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment
    if wrong or not _has_good_port(parts):
        raise ValueError("must be an address such as https://billing.example.com")
    return value.rstrip("/")


def _mail_url(value: str) -> str:
    parts = urlsplit(value)
    wrong = parts.scheme not in ("smtp", "smtps", "smtp+starttls") or not parts.hostname
    if wrong or not _has_good_port(parts):
        raise ValueError("must be an address such as smtp://user:password@host:587")
    return value


def _has_good_port(parts: SplitResult) -> bool:
    """The library's own complaint repeats what it read, which may be a piece of a password."""
    try:
        return parts.port != 0
    except ValueError:
        return False


def _database_url(value: str) -> str:
    for prefix in ("postgresql://", "postgres://"):
        if value.startswith(prefix):
            value = "postgresql+psycopg://" + value.removeprefix(prefix)
    sqlite = value.startswith("sqlite:///") and len(value) > len("sqlite:///") and ":memory:" not in value
    if not (sqlite or value.startswith("postgresql+psycopg://")) or not _is_database_url(value):
        raise ValueError("must be sqlite:////absolute/path.db or postgresql://user:password@host/name")
    return value


def _is_database_url(value: str) -> bool:
    try:
        make_url(value)
    except (ArgumentError, ValueError):
        return False
    return True


def _clock_file(value: str) -> Path:
    path = Path(value)
    try:
        clock.configure(path)
    except clock.ClockError:
        raise ValueError("the file must hold one RFC 3339 time such as 2026-11-21T10:00:00Z") from None
    finally:
        clock.configure(None)
    return path
