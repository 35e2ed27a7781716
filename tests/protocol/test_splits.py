"""Tests that the result doesn't depend on how the bytes of a connection are split into pieces."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from drills.hostile_requests import REQUESTS
from hypothesis import given, settings
from hypothesis import strategies as st
from wire import Echo, Memory, chunked, get, in_memory, post, settle

DATE = re.compile(rb"date: [^\r]*\r\n")
LARGE = 20_000
OURS = 28
INPUTS = [
    get("/a"),
    get("/a", "Connection: close"),
    get("/a", version="1.0"),
    get("http://other/b?c=d"),
    get("*", method="OPTIONS"),
    post(b"body"),
    post(b""),
    post(b"\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: here\r\n\r\n"),
    post(b"body", "Connection: Upgrade", "Upgrade: h2c"),
    chunked(b"4\r\nbody\r\n0\r\n\r\n"),
    chunked(b"4\r\n\r\n\r\n\r\n0;a=b\r\nTrailer: x\r\n\r\n"),
    chunked(b"1\r\na\r\n0\r\n\r\n", "Connection: Upgrade", "Upgrade: h2c"),
    chunked(b"1\r\na\n0\r\n\r\n"),
    chunked(b"zz\r\n"),
    b"\r\n",
    b"\r\n\r\n" + get("/b"),
    b"\n" + get("/b"),
    b"\r" + get("/b"),
    b"nonsense\r\n\r\n",
    b"nonsense",
    get("/a", "X : y"),
    get("/a", "X: a\r\n b"),
    get("/a", "Transfer-Encoding: xchunked", method="POST"),
    get("/a", host=None),
    get("/a", host="a..b"),
    get("/a", method="get"),
    get("/a", method="HEAD"),
    get("/a", method="HEAD", version="2.0"),
    *(form.sent for form in REQUESTS if len(form.sent) < LARGE and b"websocket" not in form.sent),
]


async def deliver(pieces: Iterable[bytes], *, patient: bool) -> tuple[bytes, list[Any]]:
    """Return what a connection wrote that got `pieces` and then the end, and which requests it served.

    With `patient`, each piece arrives after all earlier pieces have been processed.
    """
    echo, transport = Echo(), Memory()

    serving = in_memory(echo, transport)
    await settle()
    for piece in pieces:
        if not transport.closing:
            transport.protocol.data_received(piece)
        if patient:
            await settle()
    for _ in range(100):
        await settle()
    if not transport.closing and not transport.protocol.eof_received():
        transport.close()
    await settle()
    transport.close()
    await serving
    return DATE.sub(b"", transport.written), echo.requests


def cut(data: bytes, at: Iterable[int]) -> Sequence[bytes]:
    """Return `data` cut at these places."""
    places = [0, *sorted({place % (len(data) + 1) for place in at}), len(data)]
    return [data[start:end] for start, end in pairwise(places) if start < end]


@pytest.mark.parametrize("number", range(len(INPUTS)))
async def test_a_request_may_be_cut_at_every_byte(number: int) -> None:
    sent = INPUTS[number] + get("/after")
    whole = await deliver([sent], patient=True)

    assert await deliver((sent[place : place + 1] for place in range(len(sent))), patient=True) == whole
    assert await deliver((sent[place : place + 1] for place in range(len(sent))), patient=False) == whole
    if number < OURS:
        for place in range(1, len(sent)):
            assert await deliver([sent[:place], sent[place:]], patient=True) == whole


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from([sent for sent in INPUTS if len(sent) < 1000]), min_size=1, max_size=5),
    st.lists(st.integers(0, 5000), max_size=8),
    st.booleans(),
)
def test_requests_may_be_merged_and_cut_anywhere(requests: list[bytes], at: list[int], patient: bool) -> None:
    sent = b"".join(requests)

    assert asyncio.run(deliver(cut(sent, at), patient=patient)) == asyncio.run(deliver([sent], patient=True))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(INPUTS[:OURS]),
    st.integers(0, 5000),
    st.binary(max_size=3),
    st.integers(0, 2),
    st.lists(st.integers(0, 5000), max_size=4),
)
def test_a_request_with_any_fault_has_one_verdict(
    sent: bytes, place: int, fault: bytes, removed: int, at: list[int]
) -> None:
    """Some bytes are inserted, others left out."""
    place %= len(sent) + 1
    broken = sent[:place] + fault + sent[place + removed :] + get("/after")

    assert asyncio.run(deliver(cut(broken, at), patient=True)) == asyncio.run(deliver([broken], patient=True))
