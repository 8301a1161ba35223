"""The API process of `opagent up`: uvicorn on a listening socket that the supervisor holds.

So no caller is refused while the API restarts: connections wait in the socket's queue until it is back.
"""

from __future__ import annotations

import socket
import sys

import uvicorn


def main() -> None:
    listener = socket.socket(fileno=int(sys.argv[1]))
    config = uvicorn.Config(
        "api.app:app", loop="uvloop", http="httptools", timeout_graceful_shutdown=3, access_log=False,
        server_header=False, log_level="warning",
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
