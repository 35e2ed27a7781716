"""Drills: failures caused for real, and whether the service loses a request or a span.

`scripts/drill` runs them at full size and prints one table; `tests/process/test_drills.py` runs their short forms.
"""
