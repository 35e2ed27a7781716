"""All drills, in the order of the table."""

from __future__ import annotations

from drills import clients, stopping, upstreams
from drills.drill import Drill

TABLE: tuple[Drill, ...] = (
    stopping.requests_in_flight,
    upstreams.misbehaving_upstream,
    upstreams.flood,
    clients.disconnects,
)
