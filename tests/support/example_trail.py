"""The trail that the README's examples are printed from: a morning in a small shop, always the same."""

from __future__ import annotations

from datetime import UTC, datetime

from cdc_audit.model.context import NO_CONTEXT
from cdc_audit.model.event import ApplicationEvent, Stretch
from tests.support.small_trail import Shop, row, said_by

MORNING = datetime(2026, 11, 27, 8, 55, tzinfo=UTC)


def morning() -> list[Stretch]:
    """An order is made, paid and sent; its price is changed by hand; many are deleted; the record of a customer is read."""
    order = {"id": 42, "customer": 7, "status": "new", "amount": b"1299.00", "note": None}
    paid = {**order, "status": "paid"}
    cheaper = {**paid, "amount": b"1199.00"}
    sent = {**cheaper, "status": "sent", "note": "left at the door"}
    emil, ben = said_by("emil", "203.0.113.9", request="7f3a"), said_by("ben", "10.0.0.12", ticket="SUP-1182")
    shop = Shop(MORNING)
    shop.transaction(
        emil, row("shop.orders", None, order), row("shop.parts", None, {"id": 1, "item": 42, "what": "frame"})
    )
    shop.transaction(said_by("billing", "10.0.0.3"), row("shop.orders", order, paid), minutes=2.5)
    shop.transaction(NO_CONTEXT, row("shop.orders", paid, cheaper), minutes=31)
    shop.transaction(ben, row("shop.orders", cheaper, sent), minutes=12)
    shop.transaction(ben, ApplicationEvent("READ", "shop.customers", "7", b'{"fields": ["iban"]}'), minutes=3)
    old = [{"id": number, "item": number, "what": "old"} for number in range(100, 250)]
    shop.transaction(
        said_by("intern", "10.0.0.77"), *(row("shop.parts", one, None) for one in old), minutes=64
    )
    return shop.stretches
