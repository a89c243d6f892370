"""The guard in front of MONAI Label, with a tiny application in its place."""

import asyncio
import importlib
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest

from custom.label_app.request_guard import RequestGuard

LIMIT = 1000


async def app(scope, receive, send):
    """Read the body as far as it arrives, then answer with its length."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(size).encode()})


async def swallowing(scope, receive, send):
    """Answer any error itself, as web frameworks do."""
    try:
        await app(scope, receive, send)
    except Exception:
        await send({"type": "http.response.start", "status": 500, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def ask(path="/", query="", *, headers=(), body=(b"",), server="127.0.0.1", host="127.0.0.1:8000", app=app, origins=()):
    """Return the status and the body of the answer."""
    pairs = [(b"host", host.encode()), *((name.encode(), value.encode()) for name, value in headers)]
    scope = {"type": "http", "path": path, "query_string": query.encode(), "headers": pairs, "server": (server, 8000)}
    parts = [{"type": "http.request", "body": part, "more_body": True} for part in body]
    parts[-1]["more_body"] = False
    sent = []

    async def receive():
        return parts.pop(0)

    async def send(message):
        sent.append(message)

    asyncio.run(RequestGuard(app, upload_bytes=LIMIT, origins=origins)(scope, receive, send))
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/infer/mcp_medsam_2d", "image=case1&output=json&session_id=1b2c-3d"),
        ("/datastore/label", "image=a%20b.c&tag="),
        ("/session/", "uncompress=false&expiry=0"),
        ("/proxy/dicom/qido/studies", "ModalitiesInStudy=CT%5CMR"),
        ("/ohif/viewer", "StudyInstanceUIDs=1.2.3"),
    ],
)
def test_what_clients_ask(path, query):
    assert ask(path, query)[0] == 200


@pytest.mark.parametrize(
    ("path", "query", "field"),
    [
        ("/ohif/../../etc/passwd", "", "path"),
        ("/ohif/..\\..\\secret", "", "path"),
        ("/logs/", "logfile=/etc/passwd", "logfile"),
        ("/logs/", "logfile=..%2F..%2Fsecret", "logfile"),
        ("/infer/mcp_medsam_2d", "session_id=..", "session_id"),
        ("/infer/mcp_medsam_2d", "image=a&session_id=x%2Fy", "session_id"),
        ("/datastore/", "image=a%5Cb", "image"),
        ("/datastore/", "image=a%00b", "image"),
        ("/session/", "uncompress=true", "uncompress"),
        ("/session/", "uncompress=1", "uncompress"),
    ],
)
def test_paths_are_refused(path, query, field):
    status, body = ask(path, query)
    assert status == 400 and json.loads(body)["detail"].startswith(f"request: {field}: found ")


@pytest.mark.parametrize("application", [app, swallowing])
def test_size_of_the_body(application):
    half = bytes(LIMIT // 2)
    assert ask(body=(half, half), app=application) == (200, str(LIMIT).encode())
    status, body = ask(body=(half, half, b"x"), app=application)  # its length is not declared
    assert status == 413 and "--conf upload_mb" in json.loads(body)["detail"]
    assert ask(headers=[("Content-Length", str(LIMIT))], app=application)[0] == 200
    for length in (str(LIMIT + 1), "-1", "x"):
        assert ask(headers=[("Content-Length", length)], app=application)[0] == 413


def test_web_pages_of_others():
    assert ask(headers=[("Origin", "http://127.0.0.1:8000")])[0] == 200
    assert ask(headers=[("Origin", "https://hostile.example")])[0] == 403
    assert ask(headers=[("Origin", "null")])[0] == 403
    assert ask(headers=[("Origin", "https://viewer.example")], origins=["https://viewer.example"])[0] == 200
    assert ask(headers=[("Origin", "https://viewer.example")], origins=["*"])[0] == 200


@pytest.mark.parametrize(("host", "status"), [("localhost:8000", 200), ("[::1]:8000", 200), ("hostile.example", 403)])
def test_other_names_of_this_machine(host, status):
    """A name that a hostile page has bound to 127.0.0.1; a server for others may have any name."""
    assert ask(host=host)[0] == status
    assert ask(host=host, server="10.0.0.7")[0] == 200


def test_other_protocols_pass():
    seen = []

    async def note(scope, receive, send):
        seen.append(scope["type"])

    asyncio.run(RequestGuard(note, upload_bytes=LIMIT)({"type": "lifespan"}, None, None))
    assert seen == ["lifespan"]


@pytest.fixture
def bad_requests(monkeypatch):
    """The module that installs the guard, with a stand-in for MONAI Label, which is not installed here."""
    names = ("fastapi", "monailabel", "monailabel.config", "monailabel.endpoints")
    stand_ins = {name: ModuleType(name) for name in names}
    stand_ins["fastapi"].HTTPException = Exception
    stand_ins["monailabel.config"].settings = SimpleNamespace(MONAI_LABEL_CORS_ORIGINS=["https://viewer.example/"])
    stand_ins["monailabel.endpoints"].datastore = stand_ins["monailabel.endpoints"].infer = SimpleNamespace()
    for name, module in stand_ins.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "custom.label_app.bad_requests", raising=False)
    yield importlib.import_module("custom.label_app.bad_requests")
    sys.modules.pop("custom.label_app.bad_requests", None)


def test_the_guard_is_put_in_front_of_a_running_server_once(bad_requests, monkeypatch):
    bad_requests.guard_server(LIMIT)  # a training: there is no server
    server = ModuleType("monailabel.app")
    server.app = SimpleNamespace(middleware_stack=app)
    monkeypatch.setitem(sys.modules, "monailabel.app", server)
    for _ in range(2):
        bad_requests.guard_server(LIMIT)
    guard = server.app.middleware_stack
    assert isinstance(guard, RequestGuard) and guard.app is app
    assert (guard.upload_bytes, guard.origins) == (LIMIT, {"https://viewer.example"})


def test_the_guard_is_added_to_a_server_that_is_not_yet_running(bad_requests, monkeypatch):
    added = []
    server = ModuleType("monailabel.app")
    server.app = SimpleNamespace(middleware_stack=None, add_middleware=lambda kind, **options: added.append(kind))
    monkeypatch.setitem(sys.modules, "monailabel.app", server)
    bad_requests.guard_server(LIMIT)
    assert added == [RequestGuard]
