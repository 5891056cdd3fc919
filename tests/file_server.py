"""A server on this machine that breaks off, lies and stalls, for the tests of downloads."""

from __future__ import annotations

import hashlib
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

CONTENT = b"".join(hashlib.sha256(bytes([i % 251, i // 251])).digest() for i in range(10_000))  # 320,000 bytes
Answer = Callable[["Handler"], None]


class Handler(http.server.BaseHTTPRequestHandler):
    """Takes the next of the server's answers; the last one stays."""

    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range")))
        answers = self.server.answers
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer(self)
        self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass

    def head(self, code: int = 200, **headers: Any) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    @property
    def first(self) -> int:
        """The first byte that is asked for."""
        found = re.fullmatch(r"bytes=([0-9]+)-", self.headers.get("Range", ""))
        return int(found[1]) if found else 0

    def ranged(self, content: bytes = CONTENT) -> bytes:
        """Send the head of an answer that honours Range; returns the body that belongs to it."""
        body = content[self.first :]
        span = {"Content_Range": f"bytes {self.first}-{len(content) - 1}/{len(content)}"} if self.first else {}
        self.head(206 if self.first else 200, Content_Length=len(body), **span)
        return body


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = [whole]
        self.asked: list[tuple[str, str | None]] = []
        self.release = threading.Event()  # ends the answers that hang

    def handle_error(self, *args: Any) -> None:
        pass  # clients that hang up are what is tested

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def ranges(self) -> list[str | None]:
        return [span for _, span in self.asked]


def whole(handler: Handler) -> None:
    handler.wfile.write(handler.ranged())


def part_of(count: int) -> Answer:
    """Break off after ``count`` bytes."""
    return lambda handler: handler.wfile.write(handler.ranged()[:count]) and None


def other(content: bytes, **headers: Any) -> Answer:
    def answer(handler: Handler) -> None:
        handler.head(200, Content_Length=len(content), **headers)
        handler.wfile.write(content)

    return answer


def error(code: int) -> Answer:
    return lambda handler: handler.send_error(code, "no <b>such\tthing")


def redirect(to: str, code: int = 302) -> Answer:
    return lambda handler: handler.head(code, Location=to, Content_Length=0)


def hanging_after(count: int) -> Answer:
    def answer(handler: Handler) -> None:
        handler.wfile.write(handler.ranged()[:count])
        handler.wfile.flush()
        handler.server.release.wait(20)

    return answer


@contextmanager
def serving() -> Iterator[Server]:
    """A running server, which ends with the block."""
    found = Server()
    threading.Thread(target=found.serve_forever, args=(0.02,), daemon=True).start()
    try:
        yield found
    finally:
        found.release.set()
        found.shutdown()
        found.server_close()
