"""Runs the server process: launch, Hypercorn, connections, signals, drain."""
