"""One file for each peer: `/api/hello` and `/api/relay?count=1`, written as in the peer's own documentation.

They read UPSTREAM_URL and log no requests, so each runs in its fastest form.
"""
