"""Spans, lost traces, logs and the tracer's environment."""
