"""How processes notice that one of them has died: a connection from each to the first, which the system closes with its process.

Nobody sends anything. A process that dies closes its connection at once; a machine that falls silent is found out by the
system's own keep-alive within half a minute. Nothing depends on how busy a process is.
"""

import hmac
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable

_KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 4}
"""Seconds of silence before the first question, seconds between questions, and how many go unanswered; where the system has them."""
_TOKEN_BYTES = 32


class Lifeline:
    """Watches in a thread; `on_death` is called there with the rank that died, unless `close` was called before."""

    def __init__(self, connections: dict[int, socket.socket], on_death: Callable[[int], None]):
        self._connections, self._on_death = connections, on_death
        self._closed = False
        for connection in connections.values():
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEP_ALIVE.items():
                if hasattr(socket, option):
                    connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        threading.Thread(target=self._watch, name="lifeline", daemon=True).start()

    def close(self) -> None:
        """From now on, processes end as they should."""
        self._closed = True

    def _watch(self) -> None:
        with selectors.DefaultSelector() as selector:
            for rank, connection in self._connections.items():
                selector.register(connection, selectors.EVENT_READ, rank)
            for key, _ in selector.select():
                if not self._closed:
                    self._on_death(key.data)


class Listener:
    """The first process's end. Whoever connects must show the token; nothing else is read from a connection."""

    def __init__(self, address: str = "") -> None:
        """`address` is that of this machine to listen on; empty means all."""
        self._socket = socket.create_server((address, 0))
        self.port: int = self._socket.getsockname()[1]
        self.token = os.urandom(_TOKEN_BYTES)

    def accept(self, others: int, on_death: Callable[[int], None], seconds: float) -> Lifeline:
        """Wait for all the others.

        Raises:
            TimeoutError: Not all have come in time.
        """
        connections: dict[int, socket.socket] = {}
        deadline = time.monotonic() + seconds
        while len(connections) < others:
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            connection, _ = self._socket.accept()
            greeting = _read_greeting(connection)
            if hmac.compare_digest(greeting[:_TOKEN_BYTES], self.token):
                connections[int.from_bytes(greeting[_TOKEN_BYTES:])] = connection
            else:
                connection.close()
        self._socket.close()
        return Lifeline(connections, on_death)


def _read_greeting(connection: socket.socket) -> bytes:
    """Token and rank; of a stranger whatever it says within two seconds."""
    greeting = b""
    try:
        connection.settimeout(2)
        while len(greeting) < _TOKEN_BYTES + 4 and (more := connection.recv(_TOKEN_BYTES + 4 - len(greeting))):
            greeting += more
    except OSError:
        return b""
    return greeting


def join(host: str, port: int, token: bytes, rank: int, on_death: Callable[[int], None], seconds: float) -> Lifeline:
    """Another process's end: it watches the first.

    Raises:
        OSError: The first cannot be reached.
    """
    connection = socket.create_connection((host, port), timeout=seconds)
    connection.sendall(token + rank.to_bytes(4))
    return Lifeline({0: connection}, on_death)
