"""Each peer in one file: `/api/hello` and `/api/relay?count=1`, as its own documentation would write them.

They read UPSTREAM_URL and log no request, which is the fastest that each can be started.
"""
