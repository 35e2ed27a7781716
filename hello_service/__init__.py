"""An async Python service under Datadog APM: Quart on Hypercorn under ddtrace-run."""
