"""How the sandbox answers whatever is asked: keys, parameters, errors, idempotency, pages, expansion, faults."""

from __future__ import annotations

import json
import urllib.error
import urllib.request

import pytest
import stripe

from sandbox.server import Running
from tests.sandbox.shop import Shop


def raw(running: Running, path: str, data: str | None = None, **headers: str) -> tuple[int, dict]:
    request = urllib.request.Request(running.url + path, data.encode() if data is not None else None, headers)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_unknown_parameter_is_refused(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.invoice_items.create({"customer": "cus_1", "price": "price_1"})  # type: ignore[typeddict-unknown-key]
    assert refused.value.code == "parameter_unknown"
    assert refused.value.param == "price"
    assert refused.value.http_status == 400


def test_nested_unknown_parameter_is_named(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.subscriptions.create({"customer": "cus_1", "items": [{"prize": "x"}]})  # type: ignore[list-item]
    assert refused.value.param == "items[0][prize]"


@pytest.mark.parametrize(
    ("params", "param", "code"),
    [
        ({"currency": "usd"}, "amount", "parameter_missing"),
        ({"amount": "ten", "currency": "usd"}, "amount", "parameter_invalid_integer"),
        ({"amount": 10, "currency": ""}, "currency", "parameter_invalid_empty"),
        ({"amount": 10, "currency": "usd", "confirm": "perhaps"}, "confirm", None),
        ({"amount": 10, "currency": "usd", "capture_method": "by hand"}, "capture_method", None),
        ({"amount": 10, "currency": "usd", "metadata": {"k" * 41: "v"}}, "metadata[" + "k" * 41 + "]", None),
        ({"amount": 10, "currency": "usd", "metadata": {"k": "v" * 501}}, "metadata[k]", None),
        ({"amount": 10, "currency": "usd", "metadata": {f"k{n}": "v" for n in range(51)}}, "metadata", None),
    ],
)
def test_parameters_are_checked(client: stripe.StripeClient, params: dict, param: str, code: str | None) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.payment_intents.create(params)  # type: ignore[arg-type]
    assert (refused.value.param, refused.value.code) == (param, code)


def test_payment_method_types_is_gone(client: stripe.StripeClient) -> None:
    params = {"mode": "payment", "payment_method_types": ["card"], "success_url": "http://x.example"}
    with pytest.raises(stripe.InvalidRequestError, match="unknown parameter: payment_method_types"):
        client.v1.checkout.sessions.create(params)  # type: ignore[arg-type]


def test_missing_object_is_404_in_the_address_and_400_in_a_parameter(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.customers.retrieve("cus_none")
    assert (refused.value.http_status, refused.value.code) == (404, "resource_missing")
    with pytest.raises(stripe.InvalidRequestError) as refused:
        client.v1.subscriptions.create({"customer": "cus_none"})
    assert (refused.value.http_status, refused.value.code) == (400, "resource_missing")
    assert refused.value.param == "customer"


def test_unknown_address_is_404(running: Running) -> None:
    status, body = raw(running, "/v1/invoices/upcoming/lines", Authorization="Bearer sk_test_1")
    assert status == 404
    assert raw(running, "/v1/usage_records", "", Authorization="Bearer sk_test_1")[0] == 404
    assert body["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("key", ["", "sk_live_1", "nonsense", "pk_test_1"])
def test_keys(running: Running, key: str) -> None:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    assert raw(running, "/v1/customers", **headers)[0] == 401


def test_basic_authorization_as_in_curl_examples(running: Running) -> None:
    assert raw(running, "/v1/customers", Authorization="Basic c2tfdGVzdF8xOg==")[0] == 200


def test_other_api_version_is_refused(running: Running) -> None:
    status, body = raw(
        running, "/v1/customers", **{"Authorization": "Bearer sk_test_1", "Stripe-Version": "2020-08-27"}
    )
    assert status == 400
    assert "2020-08-27" in body["error"]["message"]


# Idempotency
def test_same_key_and_parameters_are_answered_again(client: stripe.StripeClient) -> None:
    options: stripe.RequestOptions = {"idempotency_key": "order-1"}
    first = client.v1.customers.create({"name": "A"}, options)
    again = client.v1.customers.create({"name": "A"}, options)
    assert first.id == again.id
    assert again.last_response is not None
    assert again.last_response.headers["Idempotent-Replayed"] == "true"
    assert len(client.v1.customers.list().data) == 1


def test_same_key_with_other_parameters_is_refused(client: stripe.StripeClient) -> None:
    client.v1.customers.create({"name": "A"}, {"idempotency_key": "order-1"})
    with pytest.raises(stripe.IdempotencyError) as refused:
        client.v1.customers.create({"name": "B"}, {"idempotency_key": "order-1"})
    assert refused.value.http_status == 400


def test_declines_are_kept_too(client: stripe.StripeClient) -> None:
    params = {"amount": 100, "currency": "usd", "payment_method": "pm_card_chargeDeclined", "confirm": True}
    for _ in range(2):
        with pytest.raises(stripe.CardError) as declined:
            client.v1.payment_intents.create(params, {"idempotency_key": "pay-1"})  # type: ignore[arg-type]
        assert declined.value.code == "card_declined"
    assert len(client.v1.payment_intents.list().data) == 1


def test_refused_parameters_are_not_kept(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.customers.create({"nam": "A"}, {"idempotency_key": "k"})  # type: ignore[typeddict-unknown-key]
    assert client.v1.customers.create({"name": "A"}, {"idempotency_key": "k"}).name == "A"


def test_keys_are_forgotten_after_a_day(shop: Shop) -> None:
    first = shop.api.customers.create({"name": "A"}, {"idempotency_key": "k"})
    shop.control.advance(hours=25)
    assert shop.api.customers.create({"name": "A"}, {"idempotency_key": "k"}).id != first.id


# Pages and expansion
def test_cursors_walk_through_everything(client: stripe.StripeClient) -> None:
    made = [client.v1.customers.create({"name": str(number)}).id for number in range(7)]
    page = client.v1.customers.list({"limit": 3})
    assert [one.id for one in page.data] == made[:3:-1]
    assert page.has_more
    second = client.v1.customers.list({"limit": 3, "starting_after": page.data[-1].id})
    back = client.v1.customers.list({"limit": 3, "ending_before": second.data[0].id})
    assert [one.id for one in back.data] == [one.id for one in page.data]
    assert [one.id for one in page.auto_paging_iter()] == made[::-1]


def test_limit_is_bounded(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError):
        client.v1.customers.list({"limit": 101})


def test_what_can_not_be_expanded_is_refused(client: stripe.StripeClient) -> None:
    with pytest.raises(stripe.InvalidRequestError, match="cannot be expanded"):
        client.v1.customers.create({"expand": ["favourite"]})


# Faults
def test_faults_before_the_call(shop: Shop) -> None:
    for kind, error in (
        ("error", stripe.APIError),
        ("rate_limit", stripe.RateLimitError),
        ("authentication", stripe.AuthenticationError),
        ("card", stripe.CardError),
        ("malformed", stripe.APIError),
    ):
        shop.control.fault(kind, method="POST", path="/v1/customers")
        with pytest.raises(error):
            shop.api.customers.create({})
    assert shop.api.customers.list().data == []


def test_fault_after_the_call_and_the_retry_that_meets_the_kept_answer(running: Running, shop: Shop) -> None:
    client = stripe.StripeClient("sk_test_1", base_addresses={"api": running.url}, max_network_retries=2)
    shop.control.fault("error", path="/v1/customers", after=True)
    made = client.v1.customers.create({"name": "Once"})
    assert [one.id for one in shop.api.customers.list().data] == [made.id]


def test_timeout(running: Running, shop: Shop) -> None:
    http = stripe.RequestsClient(timeout=0.2)
    client = stripe.StripeClient("sk_test_1", base_addresses={"api": running.url}, http_client=http)
    shop.control.fault("timeout")
    with pytest.raises(stripe.APIConnectionError):
        client.v1.customers.list()
    http.close()


def test_faults_can_be_cleared_and_repeat(shop: Shop) -> None:
    shop.control.fault("unavailable", times=0)
    for _ in range(3):
        with pytest.raises(stripe.APIError):
            shop.api.customers.list()
    shop.control.clear_faults()
    assert shop.api.customers.list().data == []


def test_account_and_balance(shop: Shop) -> None:
    assert shop.api.accounts.retrieve_current().charges_enabled
    shop.subscribe()
    assert shop.api.balance.retrieve().available[0].amount == 2900
