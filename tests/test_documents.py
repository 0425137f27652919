"""What the README and docs/ promise to name is named."""

from __future__ import annotations

import dataclasses
import re
from fnmatch import fnmatch

import pytest

from services.catalog.prices import PRICE_KEYS
from services.catalog.vocabulary import PRODUCT_KEYS
from services.rates import PREFIX
from services.stripe import gateway, handlers
from settings import ROOT, Settings

STRIPE = (ROOT / "docs" / "stripe.md").read_text()
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", [field.name.upper() for field in dataclasses.fields(Settings)])
def test_every_setting_is_in_the_readme(name: str) -> None:
    assert f"`{name}`" in README


@pytest.mark.parametrize("key", sorted(PRODUCT_KEYS | PRICE_KEYS | {"product", f"{PREFIX}<operation>"}))
def test_every_key_of_the_vocabulary_is_explained(key: str) -> None:
    assert f"`{key}`" in STRIPE


def test_the_events_to_register_are_those_that_act() -> None:
    listed = re.search(r"for these events:\n\n```\n(.*?)```", STRIPE, re.DOTALL)
    assert listed is not None
    patterns = listed[1].split()
    missing = [event for event in handlers.TABLE if not any(fnmatch(event, pattern) for pattern in patterns)]
    assert missing == []
    idle = [pattern for pattern in patterns if not any(fnmatch(event, pattern) for event in handlers.TABLE)]
    assert idle == []


def test_the_api_version_is_the_one_in_use() -> None:
    assert f"**{gateway.API_VERSION}**" in STRIPE


@pytest.mark.parametrize("text", [README, STRIPE], ids=["README", "stripe"])
def test_links_to_files_lead_somewhere(text: str) -> None:
    folder = ROOT if text is README else ROOT / "docs"
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (folder / target).exists(), target
