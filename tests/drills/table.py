"""All drills, in the order of the table."""

from __future__ import annotations

from drills import agents, clients, fuzz, hostile, restarts, soak, starved, stopping, upstreams
from drills.drill import Drill

DRILLS: tuple[Drill, ...] = (
    stopping.requests_in_flight,
    stopping.request_that_never_ends,
    stopping.second_signal,
    restarts.rolling_restarts,
    agents.absent_agent,
    agents.failing_agent,
    upstreams.misbehaving_upstream,
    upstreams.flood,
    clients.disconnects,
    hostile.hostile_clients,
    fuzz.fuzzed_api,
    fuzz.trace_headers,
    soak.soak,
    starved.descriptors_run_out,
    starved.odd_machine,
)
