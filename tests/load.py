"""Sends requests of many clients to one service until standard input ends: `python load.py URL [--slow] [--balance]`.

It prints "started" when each client has had its first response. At the end it prints as JSON how many responses had
which status, and every request that got no response. `--balance`: as behind a load balancer, no request is started once
`/ready` reports that the service is not ready. `--slow`: every second client requests a response that takes a second.

It uses the standard library only, because it runs where the published ports are, which may have nothing but Python.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
from collections import Counter
from urllib.parse import urlsplit

CLIENTS = 8
PAUSE_SECONDS = 0.02


class Clients:
    def __init__(self, url: str, options: list[str]) -> None:
        self.address = urlsplit(url).netloc
        self.slow = "--slow" in options
        self.ending = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.failures: list[str] = []
        self.lock = threading.Lock()
        self.started = threading.Barrier(CLIENTS + 1)

    def client(self, number: int) -> None:
        """Send requests over one connection for as long as the server keeps it open, then over a new one."""
        path = "/api/faults/slow?seconds=1" if self.slow and number % 2 else "/api/hello"
        connection = http.client.HTTPConnection(self.address, timeout=60)
        first = True
        while first or not self.ending.wait(PAUSE_SECONDS):
            try:
                connection.request("GET", path)
                response = connection.getresponse()
                response.read()
                with self.lock:
                    self.statuses[response.status] += 1
            except (OSError, http.client.HTTPException) as error:
                with self.lock:
                    self.failures.append(f"{path}: {error!r}")
                connection.close()
            if first:
                self.started.wait(60)
                first = False
        connection.close()

    def balance(self) -> None:
        """Start no more requests once the service is not ready."""
        while not self.ending.wait(0.1):
            connection = http.client.HTTPConnection(self.address, timeout=5)
            connection.request("GET", "/ready")
            if connection.getresponse().status != http.client.OK:
                self.ending.set()
            connection.close()


def main() -> None:
    """Run the clients."""
    clients = Clients(sys.argv[1], sys.argv[2:])
    threads = [threading.Thread(target=clients.client, args=[number]) for number in range(CLIENTS)]
    if "--balance" in sys.argv:
        threads.append(threading.Thread(target=clients.balance))
    for thread in threads:
        thread.start()
    clients.started.wait(60)
    sys.stdout.write("started\n")
    sys.stdout.flush()
    sys.stdin.read()
    clients.ending.set()
    for thread in threads:
        thread.join()
    sys.stdout.write(json.dumps({"statuses": clients.statuses, "failures": clients.failures}))


if __name__ == "__main__":
    main()
