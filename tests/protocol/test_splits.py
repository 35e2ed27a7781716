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
from wire import Echo, MemoryTransport, chunked, get, post, serve_in_memory, settle

DATE = re.compile(rb"date: [^\r]*\r\n")
MAX_INPUT_BYTES = 20_000
OWN_INPUTS = [
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
]
INPUTS = [
    *OWN_INPUTS,
    *(form.data for form in REQUESTS if len(form.data) < MAX_INPUT_BYTES and b"websocket" not in form.data),
]


async def deliver(pieces: Iterable[bytes], *, paced: bool) -> tuple[bytes, list[Any]]:
    """Send `pieces` to a connection, and then the end. Return what the connection wrote, and the requests it served.

    With `paced`, each piece is sent after all earlier pieces have been processed.
    """
    echo, transport = Echo(), MemoryTransport()

    serving = serve_in_memory(echo, transport)
    await settle()
    for piece in pieces:
        if not transport.closing:
            transport.protocol.data_received(piece)
        if paced:
            await settle()
    for _ in range(100):
        await settle()
    if not transport.closing and not transport.protocol.eof_received():
        transport.close()
    await settle()
    transport.close()
    await serving
    return DATE.sub(b"", transport.written), echo.requests


def split(data: bytes, at: Iterable[int]) -> Sequence[bytes]:
    """Return `data` split at the places `at`, which wrap around at its end."""
    places = [0, *sorted({place % (len(data) + 1) for place in at}), len(data)]
    return [data[start:end] for start, end in pairwise(places) if start < end]


@pytest.mark.parametrize("number", range(len(INPUTS)))
async def test_a_request_can_be_split_at_every_byte(number: int) -> None:
    sent = INPUTS[number] + get("/after")
    whole = await deliver([sent], paced=True)

    assert await deliver((sent[place : place + 1] for place in range(len(sent))), paced=True) == whole
    assert await deliver((sent[place : place + 1] for place in range(len(sent))), paced=False) == whole
    if number < len(OWN_INPUTS):  # these also in two pieces, split at every place
        for place in range(1, len(sent)):
            assert await deliver([sent[:place], sent[place:]], paced=True) == whole


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.sampled_from([sent for sent in INPUTS if len(sent) < 1000]), min_size=1, max_size=5),
    st.lists(st.integers(0, 5000), max_size=8),
    st.booleans(),
)
def test_requests_can_be_merged_and_split_anywhere(requests: list[bytes], at: list[int], paced: bool) -> None:
    sent = b"".join(requests)

    assert asyncio.run(deliver(split(sent, at), paced=paced)) == asyncio.run(deliver([sent], paced=True))


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(OWN_INPUTS),
    st.integers(0, 5000),
    st.binary(max_size=3),
    st.integers(0, 2),
    st.lists(st.integers(0, 5000), max_size=4),
)
def test_the_result_of_a_corrupted_request_does_not_depend_on_splits(
    sent: bytes, place: int, fault: bytes, removed: int, at: list[int]
) -> None:
    """Some bytes are inserted, others are left out."""
    place %= len(sent) + 1
    broken = sent[:place] + fault + sent[place + removed :] + get("/after")

    assert asyncio.run(deliver(split(broken, at), paced=True)) == asyncio.run(deliver([broken], paced=True))
