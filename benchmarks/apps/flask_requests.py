"""The setup of the older Flask guide: Flask, gunicorn and requests. Its outbound calls are sequential."""

from __future__ import annotations

import os
from typing import Any

import requests
from flask import Flask, request
from requests.adapters import HTTPAdapter

app = Flask(__name__)
session = requests.Session()
session.mount("http://", HTTPAdapter(pool_maxsize=64))  # a connection for each of gunicorn's 64 threads


@app.get("/api/hello")
def hello() -> dict[str, str]:
    return {"message": f"Hello, {request.args.get('name', 'World')}!"}


@app.get("/api/relay")
def relay() -> dict[str, Any]:
    url = os.environ["UPSTREAM_URL"]
    responses = [session.get(url, timeout=5) for _ in range(request.args.get("count", 1, int))]
    return {"answers": [{"status": response.status_code, "body": response.json()} for response in responses]}
