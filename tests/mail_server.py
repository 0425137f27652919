"""A mail server for tests: real SMTP on a port of this machine, which keeps what it takes and can be told to refuse."""

from __future__ import annotations

import base64
import email
import email.policy
import socketserver
import threading
import time
from email.message import EmailMessage


class _Handler(socketserver.StreamRequestHandler):
    server: MailServer
    timeout = 20

    def handle(self) -> None:
        self.server.connections += 1
        self._say("220 test")
        recipient = ""
        while line := self.rfile.readline().decode(errors="replace").rstrip("\r\n"):
            verb = line[:4].upper()
            if verb == "EHLO":
                self._say("250-test", "250 AUTH PLAIN")
            elif verb == "AUTH":
                self._authenticate(line)
            elif verb == "RCPT":
                recipient = line.partition("<")[2].rstrip(">")
                self._say("550 no such mailbox" if recipient in self.server.unknown else "250 ok")
            elif verb == "DATA":
                self._data(recipient)
            elif verb == "QUIT":
                self._say("221 bye")
                return
            else:
                self._say("250 ok")

    def _authenticate(self, line: str) -> None:
        _, user, password = base64.b64decode(line.split(" ")[2]).decode().split("\0")
        self.server.credentials.append((user, password))
        good = self.server.password in (None, password)
        self._say("235 welcome" if good else "535 wrong password")

    def _data(self, recipient: str) -> None:
        self._say("354 go on")
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        time.sleep(self.server.seconds)
        if self.server.refusing:
            self._say("451 not now")
            return
        message = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.server.taken.append((recipient, message))
        self._say("250 taken")

    def _say(self, *lines: str) -> None:
        self.wfile.write("".join(f"{line}\r\n" for line in lines).encode())


class MailServer(socketserver.ThreadingTCPServer):
    """`taken` are recipients and messages. `seconds` is how long it thinks before it takes one.

    As a context manager it listens inside and is gone, with all its threads, afterwards.
    """

    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.taken: list[tuple[str, EmailMessage]] = []
        self.credentials: list[tuple[str, str]] = []
        self.unknown: set[str] = set()
        self.password: str | None = None
        self.refusing = False
        self.seconds = 0.0
        self.connections = 0
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> MailServer:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()
