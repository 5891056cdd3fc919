"""A server on this machine that speaks the chat protocol, and also stalls, fails, limits, lies and breaks off."""

from __future__ import annotations

import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Answer = Callable[["Handler"], None]
GOOD = "A pale bowl-shaped thaw slump number {} cuts into mossy green tundra above a dark lake."
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Handler(http.server.BaseHTTPRequestHandler):
    """Takes the next of the server's answers; the last one stays."""

    server: Server
    question: dict[str, Any]

    def do_POST(self) -> None:
        self.question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append((self.path, self.headers.get("Authorization"), self.question))
            answers = self.server.answers
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
        answer(self)
        self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass

    def send(self, body: bytes, code: int = 200, **headers: Any) -> None:
        self.send_response(code)
        for name, value in ({"Content_Length": len(body), "Content_Type": "application/json"} | headers).items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[Answer] = [good]
        self.asked: list[tuple[str, str | None, dict[str, Any]]] = []
        self.lock = threading.Lock()
        self.release = threading.Event()  # ends the answers that hang

    def handle_error(self, *args: Any) -> None:
        pass  # clients that hang up are what is tested

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


def completion(text: str, finish: str = "stop", **more: Any) -> bytes:
    message = {"role": "assistant", "content": text}
    return json.dumps({"model": "tiny-vlm-2026", "choices": [{"message": message, "finish_reason": finish}],
                       "usage": {"prompt_tokens": 1000, "completion_tokens": 20}} | more).encode()  # fmt: skip


def good(handler: Handler) -> None:
    """A caption that keeps every rule and comes once; the same picture gets the same one."""
    picture = handler.question["messages"][1]["content"][1]["image_url"]["url"]
    number = hash(picture) % 10**9
    words = " ".join(DIGITS[int(digit)] for digit in str(number))
    handler.send(completion(GOOD.format(words)))


def says(text: str, **more: Any) -> Answer:
    return lambda handler: handler.send(completion(text, **more))


def sends(body: bytes, code: int = 200, **headers: Any) -> Answer:
    return lambda handler: handler.send(body, code, **headers)


def fails(code: int, **headers: Any) -> Answer:
    return sends(b'{"error": {"message": "no"}}', code, **headers)


def repeats_the_key(code: int) -> Answer:
    def answer(handler: Handler) -> None:
        handler.send(f"bad key {handler.headers['Authorization']}".encode(), code)

    return answer


def cut(handler: Handler) -> None:
    """Promise more than is sent."""
    body = completion(GOOD)
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) // 2])


def drips(handler: Handler) -> None:
    """A byte now and then, so that no single read ever times out."""
    handler.send_response(200)
    handler.end_headers()
    for _ in range(100):
        try:
            handler.wfile.write(b" ")
            handler.wfile.flush()
        except OSError:
            return
        time.sleep(0.05)


def hangs(handler: Handler) -> None:
    handler.server.release.wait(20)


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
