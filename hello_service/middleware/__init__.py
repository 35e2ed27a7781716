"""ASGI middleware around the app."""
