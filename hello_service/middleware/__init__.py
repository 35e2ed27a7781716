"""ASGI middleware around the app, and a limit on the WebSocket messages that Quart reads ahead."""
