"""The same service in other frameworks: `/api/hello` and `/api/relay?count=1`, written as in the frameworks' documentation.

raw.py has only `/api/hello`; the other files read UPSTREAM_URL. None of them logs requests, because logging costs CPU.
"""
