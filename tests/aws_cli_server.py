"""Runs AWS CLI commands in forks of one process that has loaded the CLI. A new process takes five times as much CPU.

`python aws_cli_server.py SOCKET` listens on a Unix socket. A client sends its three standard descriptors, then its
arguments, working directory and environment as JSON, and receives the exit code in one byte.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

import awscli.clidriver


def main(path: str) -> None:
    """Listen at `path`, and run the command of each connection in a fork."""
    run(["configure", "get", "region"])  # loads what every command needs
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel then reaps forks that have exited
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}.new")
        listener.listen()
        Path(f"{path}.new").rename(path)  # a client that finds `path` can connect
        while True:
            client, _ = listener.accept()
            with client:
                if os.fork() == 0:
                    serve(client)


def serve(client: socket.socket) -> None:
    """Run the command of `client` with its descriptors, working directory and environment, and exit."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # so that the command can wait for its own child processes
    _, descriptors, _, _ = socket.recv_fds(client, 1, 3)
    with client.makefile() as stream:
        arguments, folder, environment = json.load(stream)
    for standard_descriptor, descriptor in enumerate(descriptors):  # 0 is standard input, 1 output, 2 error
        os.dup2(descriptor, standard_descriptor)
    os.chdir(folder)
    data_path = os.environ["AWS_DATA_PATH"]  # the AWS CLI sets this when it is imported
    os.environ.clear()
    os.environ.update(environment | {"AWS_DATA_PATH": data_path})
    code = 1
    try:
        code = run(arguments)
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001 - a fork must not return to the loop in `main`
        traceback.print_exc()
    client.sendall(bytes([code]))
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Run the AWS CLI as `aws ARGUMENTS`, and return its exit code."""
    sys.argv = ["aws", *arguments]
    try:
        return int(awscli.clidriver.main())
    except SystemExit as error:  # for malformed arguments
        return int(error.code or 0)


if __name__ == "__main__":
    main(sys.argv[1])
