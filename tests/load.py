"""Sends requests from several clients to one service until standard input ends: `python load.py URL [OPTIONS]`.

    --slow     half of the clients send requests whose response takes a second
    --balance  like a load balancer, send no more requests after `/ready` has reported that the service is not ready

It prints "started" when the first request of every client has ended. At the end it prints, as JSON, the number of
responses per status and the requests that got no response.

It uses only the standard library, because it runs where the containers' ports are published, and that machine may have
nothing but Python.
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
    """Clients that send requests in threads, and the results of their requests."""

    def __init__(self, url: str, options: list[str]) -> None:
        self.address = urlsplit(url).netloc
        self.slow = "--slow" in options
        self.ending = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.failures: list[str] = []
        self.lock = threading.Lock()
        self.started = threading.Barrier(CLIENTS + 1)  # each client and `main` wait for it

    def run_client(self, number: int) -> None:
        """Send requests over one connection as long as the server keeps it open, then over a new one."""
        path = "/api/faults/slow?seconds=1" if self.slow and number % 2 else "/api/hello"
        connection = http.client.HTTPConnection(self.address, timeout=60)
        first = True  # the first request is sent at once, and each later one after a pause
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

    def end_when_not_ready(self) -> None:
        """Check `/ready` repeatedly, and end all clients when the service is not ready."""
        while not self.ending.wait(0.1):
            connection = http.client.HTTPConnection(self.address, timeout=5)
            try:
                connection.request("GET", "/ready")
                is_ready = connection.getresponse().status == http.client.OK
            except (OSError, http.client.HTTPException):  # the service has exited
                is_ready = False
            if not is_ready:
                self.ending.set()
            connection.close()


def main() -> None:
    """Run the clients until standard input ends, and print the results."""
    clients = Clients(sys.argv[1], sys.argv[2:])
    threads = [threading.Thread(target=clients.run_client, args=[number]) for number in range(CLIENTS)]
    if "--balance" in sys.argv:
        threads.append(threading.Thread(target=clients.end_when_not_ready))
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
