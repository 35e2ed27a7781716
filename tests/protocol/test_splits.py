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

DATE = re.compile(rb"date: [^\r]*\r\n")  # the only part of a response that depends on the time
MAX_INPUT_BYTES = 20_000  # sending more than this byte by byte would take too long
SMALL_INPUTS = [
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
    *SMALL_INPUTS,
    # `Echo` serves no WebSocket.
    *(attack.data for attack in REQUESTS if len(attack.data) < MAX_INPUT_BYTES and b"websocket" not in attack.data),
]
# Positions in up to five inputs of less than 1,000 bytes. Positions beyond the data wrap around.
POSITIONS = st.integers(0, 5000)


async def deliver(pieces: Iterable[bytes], *, paced: bool) -> tuple[bytes, list[Any]]:
    """Send `pieces` to a connection, and then close the client's side.

    With `paced`, each piece is sent after all earlier pieces have been processed. Return the bytes that the connection
    wrote, and the requests that it served.
    """
    echo, transport = Echo(), MemoryTransport()

    serving = serve_in_memory(echo, transport)
    await settle()
    for piece in pieces:
        if not transport.closing:
            transport.protocol.data_received(piece)
        if paced:
            await settle()
    for _ in range(100):  # a pipelined request starts only after the previous response, and no input has 100 requests
        await settle()
    if not transport.closing and not transport.protocol.eof_received():
        transport.close()  # a false return value requests this
    await settle()
    transport.close()
    await serving
    return DATE.sub(b"", transport.written), echo.requests


def split(data: bytes, positions: Iterable[int]) -> Sequence[bytes]:
    """Return `data` split at `positions`. A position beyond the end wraps around."""
    cuts = sorted({position % (len(data) + 1) for position in positions})
    return [data[start:end] for start, end in pairwise([0, *cuts, len(data)]) if start < end]


# The inputs have numbers here, because their bytes would make the ids of the tests unreadable.
@pytest.mark.parametrize("number", range(len(INPUTS)))
async def test_a_request_can_arrive_byte_by_byte(number: int) -> None:
    data = INPUTS[number] + get("/after")
    single_bytes = [data[position : position + 1] for position in range(len(data))]
    expected = await deliver([data], paced=True)

    assert await deliver(single_bytes, paced=True) == expected
    assert await deliver(single_bytes, paced=False) == expected


@pytest.mark.parametrize("number", range(len(SMALL_INPUTS)))
async def test_a_request_can_arrive_in_any_two_pieces(number: int) -> None:
    data = SMALL_INPUTS[number] + get("/after")
    expected = await deliver([data], paced=True)

    for position in range(1, len(data)):
        assert await deliver([data[:position], data[position:]], paced=True) == expected


@settings(max_examples=150, deadline=None)  # no deadline, because the machine may be busy
@given(
    requests=st.lists(st.sampled_from([data for data in INPUTS if len(data) < 1000]), min_size=1, max_size=5),
    positions=st.lists(POSITIONS, max_size=8),
    paced=st.booleans(),
)
def test_requests_can_be_merged_and_split_anywhere(requests: list[bytes], positions: list[int], paced: bool) -> None:
    data = b"".join(requests)

    assert asyncio.run(deliver(split(data, positions), paced=paced)) == asyncio.run(deliver([data], paced=True))


@settings(max_examples=150, deadline=None)  # no deadline, because the machine may be busy
@given(
    request_=st.sampled_from(SMALL_INPUTS),
    position=POSITIONS,
    inserted=st.binary(max_size=3),
    removed_count=st.integers(0, 2),
    split_positions=st.lists(POSITIONS, max_size=4),
)
def test_the_result_of_a_corrupted_request_does_not_depend_on_splits(
    request_: bytes, position: int, inserted: bytes, removed_count: int, split_positions: list[int]
) -> None:
    """At a random position, some bytes are inserted and others are removed."""
    position %= len(request_) + 1
    corrupted_data = request_[:position] + inserted + request_[position + removed_count :] + get("/after")
    pieces = split(corrupted_data, split_positions)

    assert asyncio.run(deliver(pieces, paced=True)) == asyncio.run(deliver([corrupted_data], paced=True))
