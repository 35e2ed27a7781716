"""ASGI layers around the app."""
