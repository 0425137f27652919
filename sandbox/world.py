"""Everything the sandbox remembers: objects, their order, events, and the one lock around them."""

import copy
import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from sandbox import shapes
from sandbox.clock import Clock
from sandbox.delivery import Courier
from sandbox.errors import missing
from sandbox.shapes import Obj

# Which statuses are the end of an object: nothing comes due for it any more.
FINAL: dict[str, frozenset[str]] = {
    "checkout.session": frozenset({"complete", "expired"}),
    "dispute": frozenset({"lost", "prevented", "warning_closed", "won"}),
    "invoice": frozenset({"paid", "uncollectible", "void"}),
    "payment_intent": frozenset({"canceled", "succeeded"}),
    "subscription": frozenset({"canceled", "incomplete_expired"}),
    "subscription_schedule": frozenset({"canceled", "completed", "released"}),
}
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@dataclass
class Settings:
    """What the Stripe dashboard would hold."""

    # Days after a first failed attempt at which an invoice is tried again: eight attempts in two weeks.
    retry_days: list[int] = field(default_factory=lambda: [1, 3, 5, 7, 9, 11, 14])
    # What becomes of the subscription then: cancel, unpaid or past_due.
    after_retries: str = "cancel"
    # Seconds until a bank debit is settled.
    bank_seconds: int = 3 * 86400
    draft_seconds: int = 3600
    # Stripe refuses to refund what is charged back. Off, so that what crosses on the way can be tried in any order.
    refuse_disputed_refunds: bool = False


def is_over(obj: Obj) -> bool:
    """Its status is final."""
    return obj["status"] in FINAL[obj["object"]]


class World:
    """`with world.lock:` around every use; ids follow from the order of creation, so a run can be repeated."""

    def __init__(self, clock: Clock, address: str, seed: str = "sandbox") -> None:
        self.lock = threading.RLock()
        self.clock, self.address, self.seed = clock, address, seed
        self.courier = Courier()
        self.stepping = threading.Lock()  # one mover of the clock at a time
        self.endpoints: list[tuple[str, str]] = []  # (url, secret) that were there from the start
        self.counts: Counter[str] = Counter()
        self.reset()

    def reset(self) -> None:
        """Forget everything but the time. Ids go on: whoever remembers old ones will not mistake new ones for them."""
        self.objects: dict[str, dict[str, Obj]] = {kind: {} for kind in shapes.PREFIXES}
        # Objects whose status may change, so that moving the clock does not look at all that is over.
        self.living: dict[str, dict[str, Obj]] = {kind: {} for kind in FINAL}
        self.settings = Settings()
        self.idempotent: dict[str, Any] = {}
        self.faults: list[Obj] = []
        self.request: dict[str, str | None] = {"id": None, "idempotency_key": None}
        self.seen: dict[str, Obj] = {}  # what the last event told of each object
        self.silent = False
        self.courier.reset()
        for url, secret in self.endpoints:
            self.add("webhook_endpoint", url=url, secret=secret, enabled_events=["*"], status="enabled")

    def now(self) -> int:
        return self.clock.now()

    # ids and objects
    def word(self, purpose: str, length: int = 24) -> str:
        """Letters and digits that nobody could guess and that are the same in each run."""
        self.counts[purpose] += 1
        number = int.from_bytes(hashlib.sha512(f"{self.seed}:{purpose}:{self.counts[purpose]}".encode()).digest())
        letters = []
        for _ in range(length):
            number, digit = divmod(number, len(ALPHABET))
            letters.append(ALPHABET[digit])
        return "".join(letters)

    def new_id(self, kind: str) -> str:
        prefix = shapes.PREFIXES[kind]
        return f"{prefix}_{self.word(prefix, 40 if kind == 'checkout.session' else 24)}"

    def add(self, kind: str, **values: Any) -> Obj:
        """A new object of today's shape; fields not given are null."""
        obj = shapes.blank(kind) | {"id": values.pop("id", None) or self.new_id(kind)}
        if "created" in shapes.declared(kind):
            obj["created"] = self.now()
        obj.update(values)
        self.objects[kind][obj["id"]] = obj
        if kind in self.living:
            self.living[kind][obj["id"]] = obj
        return obj

    def all(self, kind: str) -> Iterator[Obj]:
        """In the order of creation, without the deleted."""
        return (obj for obj in list(self.objects[kind].values()) if not obj.get("deleted"))

    def alive(self, kind: str) -> Iterator[Obj]:
        """Those whose status is not final, in the order of creation."""
        living = self.living[kind]
        for object_id, obj in list(living.items()):
            if is_over(obj):
                del living[object_id]
            else:
                yield obj

    def find(self, kind: str, object_id: str | None) -> Obj | None:
        obj = self.objects[kind].get(object_id or "")
        return None if obj is None or obj.get("deleted") else obj

    def get(self, kind: str, object_id: str, param: str = "id") -> Obj:
        """The object the address names, or 404."""
        obj = self.find(kind, object_id)
        if obj is None:
            raise missing(kind, object_id, param, status=404)
        return obj

    def ref(self, kind: str, object_id: str, param: str) -> Obj:
        """The object a parameter names, or 400."""
        obj = self.find(kind, object_id)
        if obj is None:
            raise missing(kind, object_id, param)
        return obj

    def delete(self, obj: Obj) -> Obj:
        """It answers as deleted from now on."""
        kept = {"id": obj["id"], "object": obj["object"], "deleted": True}
        self.objects[obj["object"]][obj["id"]] = kept
        self.living.get(obj["object"], {}).pop(obj["id"], None)
        return kept

    # copies
    def scratch(self, customer: str) -> "World":
        """A copy to try things in with one customer's objects: its events reach nobody. Other objects are only lent."""
        other = World(Clock(frozen=self.now()), self.address, self.seed + "'")
        for kind, objects in self.objects.items():
            if kind != "event":
                other.objects[kind] = {key: self._copied(obj, customer) for key, obj in objects.items()}
        other.living = {kind: {key: other.objects[kind][key] for key in ids} for kind, ids in self.living.items()}
        other.settings, other.silent = copy.deepcopy(self.settings), True
        return other

    def _copied(self, obj: Obj, customer: str) -> Obj:
        owner = obj
        if obj.get("object") == "subscription_item":
            owner = self.objects["subscription"].get(obj.get("subscription", ""), {})
        elif obj.get("object") == "invoice_payment":
            owner = self.objects["invoice"].get(obj["invoice"], {})
        return shapes.copied(obj) if customer in (owner.get("customer"), obj["id"]) else obj
