"""What the usage page says beside the chart: averages, where the period is heading, and the download."""

from __future__ import annotations

from tests import factories, html
from tests.factories import Api
from tests.moments import At


def shown(cast: factories.Cast, query: str = "") -> html.Page:
    answer = cast.alice.client.get(f"/usage{query}")
    assert answer.status_code == 200
    page = html.read(answer)
    assert page.inline == []
    return page


def use(operator: Api, cast: factories.Cast, amount: object) -> None:
    assert operator.post("/usage", {"account": cast.alice.account_id, "credits": amount}).status == 201


def test_from_too_little_history_to_a_range_of_days(operator: Api, cast: factories.Cast, at: At) -> None:
    assert "heading" not in shown(cast).text
    use(operator, cast, 3)
    words = shown(cast).text
    assert "3 used so far, 3 a day." in words and "will be about" not in words
    assert "There is too little history yet to say where that leads." in words
    for day in range(22, 30):
        at(f"2026-11-{day}T10:00:00Z")
        use(operator, cast, 3 if day < 29 else 12)
    at("2026-11-30T00:00:00Z")
    words = shown(cast).text
    assert "36 used so far, 4.194175 a day." in words
    assert "run out between 2026-12-13 and 2026-12-18 , most likely around 2026-12-16" in words


def test_credits_that_last(operator: Api, cast: factories.Cast, at: At) -> None:
    operator.post(f"/accounts/{cast.alice.account_id}/plan", {"tier": "enterprise", "included_credits": 500})
    use(operator, cast, 1)
    at("2026-11-26T10:00:00Z")
    assert "At that rate the credits last." in shown(cast).text


def test_when_nothing_is_left(operator: Api, cast: factories.Cast, at: At) -> None:
    use(operator, cast, 100)
    assert "100 used so far, 100 a day. No credits are left." in shown(cast).text


def test_averages_and_the_previous_period(operator: Api, cast: factories.Cast, at: At) -> None:
    use(operator, cast, 30)
    at("2026-12-24T10:00:00Z")
    use(operator, cast, 7)
    now, before = shown(cast), shown(cast, "?range=previous")
    assert "7 credits in 1 records, 2026-12-21 – 2026-12-25 2.33 a day on average." in now.text
    assert "30 credits in 1 records, 2026-11-21 – 2026-12-21 1 a day on average." in before.text


def test_the_download_is_of_the_range_that_is_shown(operator: Api, cast: factories.Cast, at: At) -> None:
    use(operator, cast, 30)
    at("2026-12-24T10:00:00Z")
    use(operator, cast, 7)
    for query, amount in (("", "7"), ("?range=previous", "30")):
        link = next(one for one in shown(cast, query).addresses if one.startswith("/usage/records.csv"))
        table = cast.alice.client.get(link).text.splitlines()
        assert len(table) == 2 and f",{amount},0,0,{amount},0,0," in table[1]
