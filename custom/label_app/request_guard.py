"""Check requests before MONAI Label sees them.

MONAI Label joins names from requests to paths (of logs, sessions, images), accepts bodies of any size, and answers
every web page that a browser shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from custom.errors import InputError
from custom.label_app.names import plain_name

Message = MutableMapping[str, Any]
Receive, Send = Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

_PROXY = "/proxy/"  # its query is for DICOMweb, and is not used as a path
_FALSE = ("", "0", "false", "no", "off", "f", "n")


class RequestGuard:
    """An ASGI application in front of MONAI Label's: it answers forbidden requests itself, in one line.

    - 400: a path with ``..``; a query value that is a path instead of a name; an archive to unpack.
    - 403: the request comes from a web page of another server (``Origin``), or calls this server by a wrong name.
    - 413: the body exceeds the limit, however it is sent.

    Args:
        app: the application behind it.
        upload_bytes: size of the largest body.
        origins: web pages of other servers that are allowed, as ``https://HOST``; ``"*"`` for all.
    """

    def __init__(self, app: App, *, upload_bytes: int, origins: Collection[str] = ()) -> None:
        self.app, self.upload_bytes, self.origins = app, upload_bytes, frozenset(origins)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refused(scope, headers)
        if refused is not None:
            await _answer(send, *refused)
            return
        received, started = 0, False

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self.upload_bytes:
                raise _TooLargeError
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            if received > self.upload_bytes:
                raise _TooLargeError  # whatever the application answers to the truncated body
            started = True
            await send(message)

        try:
            await self.app(scope, counted, noted)
        except _TooLargeError:
            if not started:
                await _answer(send, 413, self._too_large(f"more than {self.upload_bytes} bytes"))

    def _refused(self, scope: Message, headers: dict[str, str]) -> tuple[int, InputError] | None:
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self.upload_bytes:
            return 413, self._too_large(f"{length} bytes")
        if ".." in re.split(r"[/\\]", scope["path"]) or "\x00" in scope["path"]:
            return 400, InputError("request", "path", repr(scope["path"]), "a path without ..")
        for name, value in parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True):
            if value and not scope["path"].startswith(_PROXY):
                try:
                    plain_name(value, name)
                except InputError as error:
                    return 400, error
            if name == "uncompress" and value.lower() not in _FALSE:
                return 400, InputError("request", name, repr(value), "false: archives are not unpacked")
        return self._foreign(scope, headers)

    def _foreign(self, scope: Message, headers: dict[str, str]) -> tuple[int, InputError] | None:
        """Return the error for a page of another server, or for a wrong name of this one; else None."""
        host, origin = headers.get("host", ""), headers.get("origin")
        local = _is_loopback((scope.get("server") or ("",))[0])
        if local and host and not _is_loopback(urlsplit(f"//{host}").hostname):
            return 403, InputError("request", "Host", repr(host), "localhost or 127.0.0.1")
        if origin is not None and urlsplit(origin).netloc != host and not {"*", origin} & self.origins:
            return 403, InputError("request", "Origin", repr(origin), "a page of this server")
        return None

    def _too_large(self, found: str) -> InputError:
        return InputError("request", "body", found, f"at most {self.upload_bytes} bytes; --conf upload_mb N raises it")


class _TooLargeError(Exception):
    """The body exceeds the limit."""


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


async def _answer(send: Send, status: int, error: InputError) -> None:
    body = json.dumps({"detail": str(error)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
