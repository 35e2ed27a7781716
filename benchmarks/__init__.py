"""Compares hello_service with other frameworks: the same two routes, upstream, trace sink and core."""
