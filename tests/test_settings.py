"""Settings: defaults, every value read or refused by name, secrets on disk, what two may not be together."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import make_url

import clock
from settings import ROOT, Settings, SettingsError


def read(instance: Path, **environ: str) -> Settings:
    return Settings.from_env({"INSTANCE_PATH": str(instance), **environ})


def refusal(instance: Path, **environ: str) -> str:
    with pytest.raises(SettingsError) as error:
        read(instance, **environ)
    return str(error.value)


def test_nothing_need_be_set(tmp_path: Path) -> None:
    settings = read(tmp_path / "instance")
    assert settings.instance_path == tmp_path / "instance"
    assert settings.database_url == f"sqlite:///{tmp_path}/instance/spillway.db"
    assert settings.catalog_file == tmp_path / "instance" / "catalog.toml"
    assert (settings.host, settings.port, settings.public_url) == ("127.0.0.1", 8000, "http://127.0.0.1:8000")
    assert (settings.signup_credits, settings.free_monthly_credits) == (100, 0)
    assert (settings.grace_days, settings.suspend_days) == (7, 14)
    assert settings.alert_thresholds == (70, 90, 100)
    assert (settings.settle_unfunded, settings.allow_account_void) == (False, False)
    assert (settings.signup_grant, settings.scheduler) == ("immediate", "embedded")
    assert settings.operator_only_fields == frozenset()
    assert settings.stripe_product_tag == "spillway"
    assert (settings.mail_url, settings.metrics_token, settings.clock_file) == (None, None, None)


def test_the_database_is_in_the_instance_folder_whatever_its_name(tmp_path: Path) -> None:
    """`%`, `?` and `#` have a meaning in addresses."""
    folder = tmp_path / "50%41 #1 ?"
    assert make_url(read(folder).database_url).database == str(folder / "spillway.db")


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("HOST", "0.0.0.0", "0.0.0.0"),
        ("PORT", "65535", 65535),
        ("PUBLIC_URL", "https://billing.example.com/", "https://billing.example.com"),
        ("SIGNUP_CREDITS", "0.000001", Decimal("0.000001")),
        ("FREE_MONTHLY_CREDITS", "250.5", Decimal("250.5")),
        ("SIGNUP_GRANT", "verified", "verified"),
        ("GRACE_DAYS", "0", 0),
        ("SUSPEND_DAYS", "365", 365),
        ("ALERT_THRESHOLDS", "100, 50,50", (50, 100)),
        ("SETTLE_UNFUNDED", "1", True),
        ("ALLOW_ACCOUNT_VOID", "1", True),
        ("OPERATOR_ONLY_FIELDS", "enforce, Success,retry", frozenset({"enforce", "success", "retry"})),
        ("MAIL_URL", "smtp://me:secret@mail.example.com:587", "smtp://me:secret@mail.example.com:587"),
        ("SCHEDULER", "off", "off"),
        ("WEB_WORKERS", "4", 4),
        ("WEB_THREADS", "8", 8),
        ("ALLOWED_RETURN_HOSTS", "App.example.com,", frozenset({"app.example.com"})),
        ("METRICS_TOKEN", " m ", "m"),
        ("CREDIT_NAME", "SPU", "SPU"),
        ("CATALOG_FILE", "/etc/catalog.toml", Path("/etc/catalog.toml")),
        ("STRIPE_PRODUCT_TAG", "other", "other"),
        ("STRIPE_API_BASE", "http://127.0.0.1:12111", "http://127.0.0.1:12111"),
        ("DATABASE_URL", "postgresql://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
        ("DATABASE_URL", "postgres://u:p@h/d", "postgresql+psycopg://u:p@h/d"),
        ("DATABASE_URL", "postgresql+psycopg:///d?host=/run", "postgresql+psycopg:///d?host=/run"),
        ("DATABASE_URL", "sqlite:////srv/spillway.db", "sqlite:////srv/spillway.db"),
    ],
)
def test_each_setting_is_read(tmp_path: Path, name: str, text: str, value: Any) -> None:
    assert getattr(read(tmp_path, **{name: text}), name.lower()) == value


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("PORT", "0", "from 1 to 65535"),
        ("PORT", "65536", "from 1 to 65535"),
        ("PORT", "8000.0", "whole number"),
        ("PORT", "\u0661", "whole number"),
        ("HOST", "two\nlines", "one line"),
        ("WEB_THREADS", "-1", "from 1 to 256"),
        ("WEB_WORKERS", "many", "from 1 to 256"),
        ("GRACE_DAYS", "1e2", "from 0 to 365"),
        ("SUSPEND_DAYS", "366", "from 0 to 365"),
        ("SIGNUP_CREDITS", "0.0000001", "At most 6 decimal places"),
        ("SIGNUP_CREDITS", "-1", "not be negative"),
        ("SIGNUP_CREDITS", "NaN", "finite"),
        ("FREE_MONTHLY_CREDITS", "much", "number of credits"),
        ("FREE_MONTHLY_CREDITS", "1000000001", "not be more than"),
        ("SIGNUP_GRANT", "later", "immediate, verified"),
        ("ALERT_THRESHOLDS", "0,50", "from 1 to 100"),
        ("ALERT_THRESHOLDS", "50,101", "from 1 to 100"),
        ("ALERT_THRESHOLDS", "half", "from 1 to 100"),
        ("SETTLE_UNFUNDED", "yes", "one of 0, 1"),
        ("ALLOW_ACCOUNT_VOID", "true", "one of 0, 1"),
        ("OPERATOR_ONLY_FIELDS", "enforce,colour", "colour"),
        ("SCHEDULER", "on", "embedded, off"),
        ("PUBLIC_URL", "billing.example.com", "https://"),
        ("PUBLIC_URL", "ftp://billing.example.com", "https://"),
        ("PUBLIC_URL", "https://billing.example.com/?a=1", "https://"),
        ("MAIL_URL", "mail.example.com:25", "smtp://"),
        ("MAIL_URL", "smtp://mail.example.com:port", "smtp://"),
        ("PUBLIC_URL", "http://billing.example.com:port", "https://"),
        ("STRIPE_API_BASE", "localhost:1", "https://"),
        ("DATABASE_URL", "mysql://u:p@h/d", "postgresql://"),
        ("DATABASE_URL", "sqlite://", "sqlite:////"),
        ("DATABASE_URL", "sqlite:///:memory:", "sqlite:////"),
        ("DATABASE_URL", "postgresql://u:p@h:port/d", "postgresql://"),
        ("CLOCK_FILE", "/no/such/clock", "RFC 3339"),
    ],
)
def test_a_wrong_value_is_refused_in_one_line_that_begins_with_its_name(
    tmp_path: Path, name: str, value: str, hint: str
) -> None:
    line = refusal(tmp_path, **{name: value})
    assert line.startswith(f"{name}: ")
    assert hint in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAIL_URL", "http://me:hunter2@mail.example.com"),
        ("MAIL_URL", "smtp://me:hunter2/3@mail.example.com"),
        ("DATABASE_URL", "mysql://me:hunter2@h/d"),
        ("DATABASE_URL", "postgresql://me:hunter2@h:port/d"),
        ("STRIPE_SECRET_KEY", "hunter2\nhunter2"),
    ],
)
def test_a_refusal_never_repeats_a_secret(tmp_path: Path, name: str, value: str) -> None:
    assert "hunter2" not in refusal(tmp_path, **{name: value})


def test_the_settings_never_print_their_secrets(tmp_path: Path) -> None:
    names = ["SECRET_KEY", "METRICS_TOKEN", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET"]
    secrets = dict.fromkeys(names, "hunter2") | {
        "MAIL_URL": "smtp://me:hunter2@mail.example.com",
        "DATABASE_URL": "postgresql://me:hunter2@h/d",
    }
    settings = read(tmp_path, **secrets)
    assert settings.stripe_webhook_secret == "hunter2"
    assert "hunter2" not in repr(settings)


def test_mail_makes_the_sign_up_credits_wait_unless_told_otherwise(tmp_path: Path) -> None:
    mail = "smtp://mail.example.com"
    assert read(tmp_path, MAIL_URL=mail).signup_grant == "verified"
    assert read(tmp_path, MAIL_URL=mail, SIGNUP_GRANT="immediate").signup_grant == "immediate"


def test_public_url_follows_the_port(tmp_path: Path) -> None:
    assert read(tmp_path, PORT="9000").public_url == "http://127.0.0.1:9000"


def test_an_empty_value_is_as_good_as_none(tmp_path: Path) -> None:
    assert read(tmp_path, PORT="", MAIL_URL=" ", CLOCK_FILE="").port == 8000


def test_suspension_can_not_come_before_the_grace_ends(tmp_path: Path) -> None:
    assert refusal(tmp_path, GRACE_DAYS="10", SUSPEND_DAYS="9").startswith("SUSPEND_DAYS: ")
    assert read(tmp_path, GRACE_DAYS="10", SUSPEND_DAYS="10").suspend_days == 10


# Files


def test_any_setting_can_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from a file\n")
    (tmp_path / "port").write_text("9001")
    settings = read(tmp_path, SECRET_KEY_FILE=str(tmp_path / "key"), PORT_FILE=str(tmp_path / "port"))
    assert (settings.secret_key, settings.port) == ("from a file", 9001)


def test_a_value_and_a_file_at_once_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k")
    line = refusal(tmp_path, SECRET_KEY="k", SECRET_KEY_FILE=str(tmp_path / "key"))
    assert line == "SECRET_KEY: set SECRET_KEY or SECRET_KEY_FILE, not both"


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_can_not_be_read_is_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    line = refusal(tmp_path, METRICS_TOKEN_FILE=str(path))
    assert line == "METRICS_TOKEN_FILE: the file can not be read"


def test_the_env_file_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text('PORT=9002\nCREDIT_NAME="SPU ${HOME}"\nGRACE_DAYS=3 # days\n')
    settings = read(tmp_path, PORT="9003")
    assert (settings.port, settings.credit_name, settings.grace_days) == (9003, "SPU ${HOME}", 3)


def test_a_wrong_value_in_the_env_file_is_refused_alike(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=none\n")
    assert refusal(tmp_path).startswith("PORT: ")


def test_an_instance_folder_that_can_not_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file" / "instance").startswith("INSTANCE_PATH: ")


# The secret key


def test_a_secret_key_is_made_once_and_kept_for_the_owner_alone(tmp_path: Path) -> None:
    first = read(tmp_path).secret_key
    assert len(first) >= 43
    assert read(tmp_path).secret_key == first
    assert read(tmp_path / "other").secret_key != first
    assert stat.S_IMODE((tmp_path / "secret_key").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["secret_key"]


def test_a_given_secret_key_is_used_and_none_is_made(tmp_path: Path) -> None:
    assert read(tmp_path, SECRET_KEY="given").secret_key == "given"
    assert not (tmp_path / "secret_key").exists()


def test_processes_that_start_together_get_one_secret_key(tmp_path: Path) -> None:
    script = "from settings import Settings; print(Settings.from_env().secret_key)"
    environ = {"PATH": os.environ["PATH"], "INSTANCE_PATH": str(tmp_path)}
    starts = [
        subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    keys = {start.communicate(timeout=60)[0] for start in starts}
    assert keys == {(tmp_path / "secret_key").read_text() + "\n"}


@pytest.mark.parametrize("content", [b"", b"\n", b"\xff"])
def test_a_kept_secret_key_that_holds_none_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "secret_key").write_bytes(content)
    assert refusal(tmp_path).startswith("SECRET_KEY: ")


# The movable clock


@pytest.fixture
def clock_file(tmp_path: Path) -> Path:
    path = tmp_path / "clock"
    path.write_text("2001-01-01T00:00:00Z")
    return path


def test_a_clock_file_is_taken_without_moving_this_process(tmp_path: Path, clock_file: Path) -> None:
    assert read(tmp_path, CLOCK_FILE=str(clock_file)).clock_file == clock_file
    assert clock.now().year > 2001


@pytest.mark.parametrize("key", ["sk_live_abc", "rk_live_abc"])
def test_a_moved_clock_never_meets_a_live_key(tmp_path: Path, clock_file: Path, key: str) -> None:
    line = refusal(tmp_path, CLOCK_FILE=str(clock_file), STRIPE_SECRET_KEY=key)
    assert line.startswith("CLOCK_FILE: ")
    assert "abc" not in line


def test_a_moved_clock_may_meet_a_test_key(tmp_path: Path, clock_file: Path) -> None:
    settings = read(tmp_path, CLOCK_FILE=str(clock_file), STRIPE_SECRET_KEY="sk_test_abc")
    assert settings.stripe_secret_key == "sk_test_abc"


def test_a_clock_without_a_time_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "clock").write_text("noon")
    assert refusal(tmp_path, CLOCK_FILE=str(tmp_path / "clock")).startswith("CLOCK_FILE: ")
