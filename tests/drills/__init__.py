"""Each drill exposes the service to a real failure, attack or load, and checks that the service keeps a promise, such
as to lose no request or span.

`scripts/drill` runs them at full size and prints a table of the results. `tests/process/test_drills.py` runs their
short forms.
"""
