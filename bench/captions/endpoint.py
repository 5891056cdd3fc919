"""A captioner behind an endpoint that speaks the chat protocol of OpenAI's API (``POST BASE/chat/completions``).

The key comes from an environment variable and goes into one request header, nowhere else: it is in no file, no log and
no argument; where a server repeats it, it is blotted out. It is never sent in clear to another machine, and a redirect,
which would carry it elsewhere, is refused.
"""

from __future__ import annotations

import base64
import email.utils
import http.client
import json
import os
import random
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from typing import IO, Any

from bench.captions.ask import Answer, Captioner, NoAnswer
from bench.captions.prompt import Prompt
from bench.core.errors import RfbenchError, one_line

KEY = "RFBENCH_CAPTION_KEY"
MAX_BYTES = 2**22  # of an answer: a caption takes a few hundred
_AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529}  # what may be otherwise in a moment
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


class Endpoint(Captioner):
    """One model of one server.

    Parameters
    ----------
    url : the base, such as ``https://host/v1``.
    model : the name that the server knows it by.
    key_env : the environment variable with the key; a server without keys needs none.
    timeout_s : for one whole answer, however slowly it drips.
    retries : how often a question is sent again after a failure that may pass.
    max_tokens : of the answer.
    seed : sent with each question, ``seed + attempt``, since the same question would get the same failure.
    at_once : how many questions may be under way.
    sleep : waits so many seconds; for tests.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        key_env: str = KEY,
        timeout_s: float = 120.0,
        retries: int = 5,
        max_tokens: int = 300,
        seed: int = 0,
        at_once: int = 1,
        longest_wait_s: float = 60.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RfbenchError(f"--model {one_line(parts.hostname or url, 80)}: expected https://HOST/v1 or a folder")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise RfbenchError("--model: the address holds more than host and path; a key belongs into --key-env")
        self._key = os.environ.get(key_env, "").strip()
        if self._key and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise RfbenchError(f"--model: {parts.hostname} would get the key of {key_env} in clear; use https")
        if not all(33 <= ord(c) <= 126 for c in self._key):
            raise RfbenchError(f"{key_env} holds characters that no key has; set it anew")
        self._base, self._host, self._model = url.rstrip("/"), parts.netloc, model
        self._timeout_s, self._retries, self._max_tokens, self._seed = timeout_s, retries, max_tokens, seed
        self._longest_wait_s, self._sleep = longest_wait_s, sleep
        self._opener = urllib.request.build_opener(_NoRedirect)
        self.at_once = at_once

    def identity(self) -> dict[str, Any]:
        decoding = {"temperature": 0, "seed": self._seed, "max_tokens": self._max_tokens}
        return {"kind": "endpoint", "address": self._base, "model": self._model, "decoding": decoding}

    def ask(self, prompt: Prompt, pictures: Sequence[bytes], attempt: int) -> Answer:
        content: list[dict[str, Any]] = [{"type": "text", "text": prompt.ask}]
        for picture in pictures:
            encoded = base64.b64encode(picture).decode()
            content.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}})
        body = {
            "model": self._model,
            "messages": [{"role": "system", "content": prompt.system}, {"role": "user", "content": content}],
            "temperature": 0,
            "seed": self._seed + attempt,
            "max_tokens": self._max_tokens,
        }
        data = json.dumps(body).encode()
        why = ""
        for again in range(self._retries + 1):
            try:
                return self._answer(self._post(data))
            except _Passing as error:
                why = str(error)
                if again < self._retries:
                    self._sleep(self._wait_s(again, error.retry_after_s))
        tries = self._retries + 1
        raise NoAnswer(f"{self._host}: no answer in {tries} {'try' if tries == 1 else 'tries'}, last: {why}")

    def _wait_s(self, again: int, asked_s: float | None) -> float:
        """What the server asks for, else doubling from a second with some chance in it; never more than the longest."""
        return min(self._longest_wait_s, asked_s if asked_s is not None else 2.0**again * random.uniform(0.75, 1.25))

    def _post(self, data: bytes) -> bytes:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(f"{self._base}/chat/completions", data, headers, method="POST")
        deadline = time.monotonic() + self._timeout_s
        try:
            with self._opener.open(request, timeout=self._timeout_s) as response:
                return self._body(response, deadline)
        except urllib.error.HTTPError as error:
            with error:
                told = self._safe(_told(error))
            if error.code in _AGAIN:
                raise _Passing(f"HTTP {error.code} {told}", _retry_after(error.headers.get("Retry-After"))) from None
            if 300 <= error.code < 400:
                raise RfbenchError(
                    f"{self._host} sends elsewhere (HTTP {error.code}); give the final address"
                ) from None
            advice = "check the key" if error.code in (401, 403) else "check the address, the model and its limits"
            raise RfbenchError(f"{self._host} refuses: HTTP {error.code} {told}; {advice}") from None
        except http.client.IncompleteRead:
            raise _Passing("the answer was cut off") from None
        except TimeoutError:
            raise _Passing(f"no answer within {self._timeout_s:g} s") from None
        except (OSError, http.client.HTTPException) as error:  # URLError among them
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, TimeoutError):
                raise _Passing(f"no answer within {self._timeout_s:g} s") from None
            raise _Passing(self._safe(one_line(reason, 120))) from None

    def _body(self, response: Any, deadline: float) -> bytes:
        parts, size = [], 0
        while chunk := response.read1(2**16):
            parts.append(chunk)
            size += len(chunk)
            if size > MAX_BYTES:
                raise RfbenchError(f"{self._host} sends more than {MAX_BYTES} bytes; it is no such endpoint")
            if time.monotonic() > deadline:
                raise TimeoutError
        length = response.headers.get("Content-Length")
        if length is not None and length.isdigit() and size < int(length):
            raise http.client.IncompleteRead(b"")
        return b"".join(parts)

    def _answer(self, body: bytes) -> Answer:
        """The text of an answer. A server that says 200 and sends something else may be one that is starting up."""
        try:
            found = json.loads(body)
            choice = found["choices"][0]
            text = choice["message"]["content"]
            if not isinstance(text, str):
                raise TypeError("the content is no text")
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            start = self._safe(body[:200].decode("utf-8", "replace"))
            raise _Passing(
                f"an answer that is no chat completion ({one_line(error, 60)}): {one_line(start, 80)}"
            ) from None
        if choice.get("finish_reason") == "length":
            raise _Passing(f"the answer was cut at {self._max_tokens} tokens; raise --max-tokens")
        usage = found.get("usage") if isinstance(found.get("usage"), dict) else {}
        model = found.get("model") if isinstance(found.get("model"), str) else ""
        return Answer(
            self._safe(text), _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens")),
            one_line(self._safe(model), 120),
        )  # fmt: skip

    def _safe(self, text: str) -> str:
        return text.replace(self._key, "[key]") if self._key else text


class _Passing(Exception):
    """A failure that may pass; ``retry_after_s`` where the server says when."""

    def __init__(self, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


def _told(error: IO[bytes]) -> str:
    try:
        return one_line(error.read(2000).decode("utf-8", "replace"), 160)
    except (OSError, http.client.HTTPException):
        return ""


def _retry_after(text: str | None) -> float | None:
    """Seconds, or a date, as RFC 9110 has it; None where it is neither."""
    if not text:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None
