"""Two failed traces for tests of the local view: one with 39 spans of nine services, and one with 2,000 spans."""

from __future__ import annotations

from tracing_data import span

from hello_service.localview.spans import Span

# The last digits of each id are the number of spans in the trace.
CHECKOUT_ID = f"{0x39:032x}"
LARGE_ID = f"{0x2000:032x}"
CHECKOUT_ERRORS = 7  # the number of spans with an error
STACK_TRACE = """Traceback (most recent call last):
  File "/srv/shop/.venv/lib/python3.13/site-packages/httpx/_transports/default.py", line 101, in map_exceptions
    yield
httpcore.ConnectError: All connection attempts failed

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/srv/shop/.venv/lib/python3.13/site-packages/quart/app.py", line 1598, in dispatch_request
    return await self.ensure_async(handler)(**request_.view_args)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/srv/shop/payments/routes.py", line 41, in work
    return await bank.charge(card, amount)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/srv/shop/payments/bank.py", line 88, in charge
    raise CardDeclined("card ending 4242 was declined")
shop.errors.CardDeclined: card ending 4242 was declined
"""
ERROR_TAGS = {
    "error.type": "shop.errors.CardDeclined",
    "error.message": "card ending 4242 was declined",
    "error.stack": STACK_TRACE,
    "http.url": "http://bank/charge?card=4242",
    "http.status_code": "502",
    # The trace page shows these two apart, as tags about the tracer and the process.
    "runtime-id": "6955d175e28042da9be2200338da4a14",
    "_dd.p.dm": "-0",
}


def checkout() -> list[Span]:
    """Return 39 spans, including 24 equal queries and an error that propagates through four services to the root."""
    root = span(
        trace=0x39,
        resource="POST /checkout",
        service="gateway",
        duration_ms=420,
        error=True,
        meta={"http.status_code": "502", "http.method": "POST", "env": "dev"},
        metrics={"_dd.top_level": 1, "process_id": 77, "http.response.size": 512},
    )
    auth_call = span(root, name="http.request", resource="GET auth", service="gateway", start_ms=5, duration_ms=30)
    auth = span(auth_call, resource="GET /session/<id>", service="auth", start_ms=8, duration_ms=24)
    orders_call = span(
        root, name="http.request", resource="POST orders", service="gateway", start_ms=40, duration_ms=370, error=True
    )
    orders = span(
        orders_call,
        resource="POST /orders",
        service="orders",
        start_ms=45,
        duration_ms=360,
        error=True,
        meta=ERROR_TAGS,
    )
    queries = [
        span(
            orders,
            name="postgres.query",
            resource="SELECT * FROM items WHERE id = ?",
            service="db",
            start_ms=50 + 9 * n,
            duration_ms=9,
        )
        for n in range(24)
    ]
    payments_call = span(
        orders,
        name="http.request",
        resource="POST payments",
        service="orders",
        start_ms=280,
        duration_ms=110,
        error=True,
    )
    payments = span(
        payments_call,
        resource="POST /charge",
        service="payments",
        start_ms=285,
        duration_ms=100,
        error=True,
        meta=ERROR_TAGS,
    )
    bank = span(
        payments,
        name="http.request",
        resource="POST bank",
        service="bank",
        start_ms=310,
        duration_ms=15,
        error=True,
        meta=ERROR_TAGS,
    )
    other_calls = [
        span(
            payments, name="http.request", resource=f"POST {name}", service=name, start_ms=340 + 20 * n, duration_ms=15
        )
        for n, name in enumerate(("risk", "ledger", "mail"))
    ]
    redis = [
        span(root, name="redis.command", resource=f"SET {n}", service="gateway", start_ms=410 + n, duration_ms=1)
        for n in range(3)
    ]
    audit = span(root, name="audit", resource="audit", service="gateway", start_ms=418, duration_ms=1, error=True)
    return [
        root,
        auth_call,
        auth,
        orders_call,
        orders,
        *queries,
        payments_call,
        payments,
        bank,
        *other_calls,
        *redis,
        audit,
    ]


def large() -> list[Span]:
    """Return 2,000 spans of six services. Each has at most three children, and one span has an error."""
    spans = [span(trace=0x2000, duration_ms=3000)]
    for n in range(1999):
        failed = n == 1200  # any span far below the root
        meta = ERROR_TAGS if failed else {"number": str(n)}
        service = f"service-{n % 5}"
        spans.append(
            span(
                spans[n // 3],
                start_ms=n,
                duration_ms=5,
                resource=f"GET /item/{n}",
                service=service,
                error=failed,
                meta=meta,
            )
        )
    return spans
