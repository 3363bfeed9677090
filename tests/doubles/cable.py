"""A network cable between a client and a service on this machine: it can be cut, and mended."""

import socket
import threading


class Cable:
    """Passes bytes on from a port of its own to another. Cut, it swallows what it is given and says nothing."""

    def __init__(self, port: int):
        self._to, self.is_cut = port, False
        self._ear = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._ear.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._ear.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while content := one.recv(65536):
                if not self.is_cut:
                    other.sendall(content)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def close(self) -> None:
        self._ear.close()
