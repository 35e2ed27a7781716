"""What must not lose a request or a span: each event made for real, and what was measured.

`scripts/drill` runs them at full size and prints one table; `tests/process/test_drills.py` runs the same in short.
"""
