"""Many clients of one service, until standard input ends. Started as `python load.py URL [--slow] [--balance]`.

Prints "answered" when each client has its first answer, and at the end, as JSON, how many answers of which status
there were and every request that got none. `--balance`: as behind a load balancer, no request is begun once `/ready`
says that there should be none. `--slow`: a client in two asks for an answer that takes a second.

Standard library alone: it runs where the published ports are, with nothing but a Python.
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
        self.enough = threading.Event()
        self.answers: Counter[int] = Counter()
        self.failures: list[str] = []
        self.lock = threading.Lock()
        self.begun = threading.Barrier(CLIENTS + 1)

    def client(self, number: int) -> None:
        """Ask again and again over one connection, as long as the server keeps it."""
        path = "/api/faults/slow?seconds=1" if self.slow and number % 2 else "/api/hello"
        connection = http.client.HTTPConnection(self.address, timeout=60)
        first = True
        while first or not self.enough.wait(PAUSE_SECONDS):
            try:
                connection.request("GET", path)
                answer = connection.getresponse()
                answer.read()
                with self.lock:
                    self.answers[answer.status] += 1
            except (OSError, http.client.HTTPException) as error:
                with self.lock:
                    self.failures.append(f"{path}: {error!r}")
                connection.close()
            if first:
                self.begun.wait(60)
                first = False
        connection.close()

    def balance(self) -> None:
        """Begin no request once the service says that it is not ready."""
        while not self.enough.wait(0.1):
            connection = http.client.HTTPConnection(self.address, timeout=5)
            connection.request("GET", "/ready")
            if connection.getresponse().status != http.client.OK:
                self.enough.set()
            connection.close()


def main() -> None:
    """Run the clients."""
    clients = Clients(sys.argv[1], sys.argv[2:])
    threads = [threading.Thread(target=clients.client, args=[number]) for number in range(CLIENTS)]
    if "--balance" in sys.argv:
        threads.append(threading.Thread(target=clients.balance))
    for thread in threads:
        thread.start()
    clients.begun.wait(60)
    sys.stdout.write("answered\n")
    sys.stdout.flush()
    sys.stdin.read()
    clients.enough.set()
    for thread in threads:
        thread.join()
    sys.stdout.write(json.dumps({"answers": clients.answers, "failures": clients.failures}))


if __name__ == "__main__":
    main()
