"""The same service in other frameworks: `/api/hello` and `/api/relay?count=1`, written as in their own documentation.

Each file reads UPSTREAM_URL, and logs no requests, so that the framework runs in its fastest form.
"""
