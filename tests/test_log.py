"""What the logs say, and what they never say. Run in processes of their own, as configuring logs is for good."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

import log
from settings import ROOT

TOKEN = "spw_0123456789abcdef" + "S" * 43


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"token {TOKEN} refused", "token spw_0123… refused"),
        (f"Authorization: Bearer {TOKEN}", "Authorization: Bearer …"),
        ("Bearer eyJhbGciOi.J9", "Bearer …"),
        ("key sk_live_51Habc_9 here", "key sk_… here"),
        ("rk_test_abc", "rk_…"),
        ("whsec_abcDEF123", "whsec_…"),
        ("two: sk_test_a, sk_test_b", "two: sk_…, sk_…"),
        ("task_list and risk_level are words", "task_list and risk_level are words"),
        ("nothing secret", "nothing secret"),
    ],
)
def test_secrets_are_cut_where_they_begin(text: str, kept: str) -> None:
    assert log.redact(text) == kept


def lines(script: str) -> list[dict[str, Any]]:
    """What the script writes to stderr, every line a JSON object."""
    done = subprocess.run(
        [sys.executable, "-c", "import logging, structlog, log\nlog.configure()\n" + script],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


def test_our_own_and_the_libraries_logs_are_one_json_object_a_line() -> None:
    own, foreign = lines(
        "structlog.get_logger('spillway.mine').info('two\\nlines', account='acc_1', ünï='ö')\n"
        "logging.getLogger('library').warning('%s of %d', 'one', 2)"
    )
    assert own["event"] == "two\nlines"
    assert (own["level"], own["logger"]) == ("info", "spillway.mine")
    assert (own["account"], own["ünï"]) == ("acc_1", "ö")
    assert own["timestamp"].endswith("Z")
    assert (foreign["event"], foreign["level"], foreign["logger"]) == ("one of 2", "warning", "library")


def test_secrets_are_cut_from_events_fields_and_tracebacks() -> None:
    script = f"""
structlog.get_logger('a').info('saw {TOKEN}', header='Bearer abc', nested={{'key': ['sk_live_abc']}})
logging.getLogger('b').error('key %s', 'whsec_abc')
try:
    raise ValueError('sk_test_abc')
except ValueError:
    logging.getLogger('c').exception('failed')
"""
    own, foreign, failed = lines(script)
    assert own["event"] == "saw spw_0123…"
    assert own["header"] == "Bearer …"
    assert own["nested"] == {"key": ["sk_…"]}
    assert foreign["event"] == "key whsec_…"
    assert "ValueError: sk_…" in failed["exception"]
    assert "Traceback" in failed["exception"]


def test_debug_and_chatter_are_left_out_and_configuring_again_doubles_nothing() -> None:
    script = """
log.configure()
logging.getLogger('spillway').debug('detail')
logging.getLogger('apscheduler.scheduler').info('chatter')
logging.getLogger('spillway').info('once')
"""
    assert [line["event"] for line in lines(script)] == ["once"]


def test_what_is_no_json_is_still_logged() -> None:
    (line,) = lines("structlog.get_logger('a').info('odd', value=object(), raw=b'x')")
    assert line["event"] == "odd"
    assert line["value"].startswith("<object object")
