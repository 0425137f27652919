"""What becomes of a checkout session when its customer pays, is asked by their bank, or waits for a debit."""

from dataclasses import dataclass

from sandbox import methods, payments, setups
from sandbox.billing import invoices, lines, starting
from sandbox.billing import subscriptions as life
from sandbox.errors import ApiError
from sandbox.events import emit
from sandbox.resources.customers import make_customer
from sandbox.shapes import Obj
from sandbox.world import World

DAY = 86400


@dataclass(frozen=True)
class Outcome:
    """`url`: where the customer goes next. Without one they stay where they are and read `message`."""

    url: str | None = None
    message: str | None = None


def submit(
    world: World, session: Obj, number: str | None, email: str | None = None, name: str | None = None
) -> Outcome:
    """The customer pressed the button. `number`: of a test card or bank account, None where no card is asked for."""
    if session["status"] != "open":
        return where_next(world, session)
    try:
        method = methods.make(world, number) if number is not None else None
        customer = _customer(world, session, email, name)
        session["_method"] = method["id"] if method else None
        {"payment": _pay, "subscription": _subscribe, "setup": _set_up}[session["mode"]](
            world, session, customer, method
        )
    except ApiError as refusal:
        return Outcome(message=refusal.message)
    return where_next(world, session)


def where_next(world: World, session: Obj) -> Outcome:
    """On to the shop when it is done, to the bank when that asks, back to the form otherwise."""
    if session["status"] == "complete":
        return Outcome(url=session["success_url"].replace("{CHECKOUT_SESSION_ID}", session["id"]))
    if session["status"] == "expired":
        return Outcome(message="This page has expired.")
    intent = world.find("payment_intent", session["_intent"]) or world.find("setup_intent", session["_setup"])
    if intent and intent["status"] == "requires_action":
        return Outcome(url=intent["next_action"]["redirect_to_url"]["url"])
    error = (intent or {}).get("last_payment_error") or (intent or {}).get("last_setup_error")
    return Outcome(message=error["message"] if error else None)


def _customer(world: World, session: Obj, email: str | None, name: str | None) -> Obj | None:
    """The session's, or a new one where this session makes one; None for a guest."""
    known = world.find("customer", session["customer"] or session["_customer"])
    email = email or session["customer_email"] or (known or {}).get("email")
    session["_person"] = {"email": email, "name": name or (known or {}).get("name")}
    if known or (session["customer_creation"] != "always" and session["mode"] != "subscription"):
        return known
    made = make_customer(world, {key: value for key, value in session["_person"].items() if value})
    session["_customer"] = made["id"]
    return made


# One payment
def _pay(world: World, session: Obj, customer: Obj | None, method: Obj | None) -> None:
    if not session["amount_total"]:
        return complete(world, session, "no_payment_required")
    assert method is not None
    intent = world.find("payment_intent", session["_intent"]) or _intent(world, session, customer)
    intent["customer"] = customer["id"] if customer else None
    if payments.confirm(world, intent, method) == "processing":
        complete(world, session, "unpaid")
    return None


def _intent(world: World, session: Obj, customer: Obj | None) -> Obj:
    data = dict(session["_payment_intent_data"])
    metadata = data.pop("metadata", {})
    owner = customer["id"] if customer else None
    intent = payments.create(world, session["amount_total"], session["currency"], owner, metadata=metadata, **data)
    session["_intent"], intent["_session"] = intent["id"], session["id"]
    return intent


# A subscription
def _subscribe(world: World, session: Obj, customer: Obj | None, method: Obj | None) -> None:
    """What costs nothing today saves the card first; otherwise the first invoice is paid with it."""
    assert customer is not None
    if not session["amount_total"]:
        return _set_up(world, session, customer, method) if method else _begin(world, session)
    assert method is not None
    subscription = world.find("subscription", session["_subscription"]) or _start(world, session, customer, None)
    invoice = world.get("invoice", subscription["latest_invoice"])
    intent = invoices.intent_of(world, invoice)
    assert intent is not None
    session["_intent"], intent["_session"] = intent["id"], session["id"]
    subscription["default_payment_method"] = method["id"]
    news = invoices.collect(world, invoice, method=method)
    if news == "failed":
        subscription["default_payment_method"] = None
    if news == "processing":
        complete(world, session, "unpaid")
    return None


def _start(world: World, session: Obj, customer: Obj, method: Obj | None) -> Obj:
    data = session["_subscription_data"]
    bought = [world.objects["item"][line] for line in session["_lines"]]
    wanted = [{"price": world.objects["price"][one["_price"]], "quantity": one["quantity"]} for one in bought]
    order = starting.Order(
        customer=customer,
        items=[one for one in wanted if one["price"]["type"] == "recurring"],
        extra_items=[one for one in wanted if one["price"]["type"] == "one_time"],
        trial_end=trial_end(world, data),
        values={
            name: data[name] for name in ("description", "metadata", "trial_settings", "billing_mode") if name in data
        },
        behavior="default_incomplete",
        method=method,
    )
    if method:
        order.values["default_payment_method"] = method["id"]
    subscription = starting.start(world, order)
    session["_subscription"] = subscription["id"]
    return subscription


def trial_end(world: World, data: Obj) -> int | None:
    if "trial_period_days" in data:
        return world.now() + DAY * int(data["trial_period_days"])
    return data.get("trial_end")


def _begin(world: World, session: Obj) -> None:
    """Start what costs nothing today, with the card that was saved for later, if any."""
    customer = world.get("customer", session["customer"] or session["_customer"])
    method = world.find("payment_method", session["_method"])
    _start(world, session, customer, method)
    complete(world, session, "no_payment_required")


# A card for later
def _set_up(world: World, session: Obj, customer: Obj | None, method: Obj | None) -> None:
    assert method is not None
    intent = world.find("setup_intent", session["_setup"]) or setups.create(world, None)
    session["_setup"], intent["_session"] = intent["id"], session["id"]
    intent["customer"] = customer["id"] if customer else None
    setups.confirm(world, intent, method)


# Following what the payments do
def follow_payment(world: World, intent: Obj) -> None:
    session = world.find("checkout.session", intent.get("_session"))
    if session is None:
        return
    succeeded = intent["status"] == "succeeded"
    if session["status"] == "open" and succeeded:
        complete(world, session, "paid")
    elif session["status"] == "complete" and session["payment_status"] == "unpaid":
        _settled(world, session, succeeded)


def _settled(world: World, session: Obj, succeeded: bool) -> None:
    """The debit's end, days after the session's. A later attempt on the invoice is no news of the session."""
    if session.get("_settled"):
        return
    session["_settled"] = True
    if succeeded:
        session["payment_status"] = "paid"
        _invoice(world, session)
    emit(world, f"checkout.session.async_payment_{'succeeded' if succeeded else 'failed'}", session)


def follow_setup(world: World, intent: Obj) -> None:
    session = world.find("checkout.session", intent.get("_session"))
    if session is None or session["status"] != "open" or intent["status"] != "succeeded":
        return
    if session["mode"] == "subscription":
        _begin(world, session)
    else:
        complete(world, session, "no_payment_required")


payments.FOLLOWERS.append(follow_payment)
setups.FOLLOWERS.append(follow_setup)


def complete(world: World, session: Obj, payment_status: str) -> None:
    """The customer is done; `unpaid` while a bank takes its time."""
    session.update(status="complete", payment_status=payment_status, url=None)
    session["customer"] = session["customer"] or session["_customer"]
    session["customer_details"] = {
        "address": None,
        "business_name": None,
        "individual_name": None,
        "phone": None,
        "tax_exempt": "none",
        "tax_ids": [],
    } | session["_person"]
    _keep_method(world, session)
    if session["mode"] == "payment":
        session["payment_intent"] = session["_intent"]
    if session["mode"] == "setup":
        session["setup_intent"] = session["_setup"]
    if subscription := world.find("subscription", session["_subscription"]):
        session.update(subscription=subscription["id"], invoice=subscription["latest_invoice"])
    if payment_status == "paid":
        _invoice(world, session)
    emit(world, "checkout.session.completed", session)


def _keep_method(world: World, session: Obj) -> None:
    """The card of a subscription becomes the customer's; that of a single payment only when wanted."""
    wanted = session["mode"] == "subscription" or session["_payment_intent_data"].get("setup_future_usage")
    method = world.find("payment_method", session["_method"])
    if wanted and method and session["customer"]:
        methods.attach(world, method, world.get("customer", session["customer"]))


def _invoice(world: World, session: Obj) -> None:
    """The invoice of a single payment, for `invoice_creation`: made when the money is there, and paid by that."""
    wanted = session["invoice_creation"]
    if session["mode"] != "payment" or not wanted or not wanted["enabled"] or session["invoice"]:
        return
    customer = world.get("customer", session["customer"])
    data = wanted["invoice_data"]
    values = {name: data[name] for name in ("description", "footer", "metadata") if data.get(name)}
    invoice = invoices.make(world, customer, session["currency"], "manual", **values)
    moment = (world.now(), world.now())
    for line in (world.objects["item"][one] for one in session["_lines"]):
        price = world.objects["price"][line["_price"]]
        options = {"price": price, "quantity": line["quantity"], "description": line["description"]}
        item = lines.invoice_item(world, customer["id"], line["amount_total"], session["currency"], moment, **options)
        invoices.add_items(world, invoice, [item])
    invoices.announce(world, invoice, wait=False)
    session["invoice"] = invoice["id"]
    invoices.settle_with(world, invoice, world.get("payment_intent", session["_intent"]))


def expire(world: World, session: Obj) -> None:
    """Nobody paid in time, or the shop took it back. What was begun is ended."""
    session.update(status="expired", url=None)
    subscription = world.find("subscription", session["_subscription"])
    if subscription and subscription["status"] == "incomplete":
        life.expire(world, subscription)
    intent = world.find("payment_intent", session["_intent"])
    if intent and intent["status"] in payments.PENDING:
        payments.cancel(world, intent, "expired")
    emit(world, "checkout.session.expired", session)
