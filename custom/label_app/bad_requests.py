"""Answer bad input with HTTP 400 and one line that names the problem; MONAI Label itself answers 500 without text."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.config import settings
from monailabel.endpoints import datastore, infer

from custom.errors import InputError
from custom.json_files import parse_json
from custom.label_app.request_guard import RequestGuard


@contextmanager
def as_http_400() -> Iterator[None]:
    """Turn an ``InputError`` into HTTP 400, without the folders of the server."""
    try:
        yield
    except InputError as error:
        shown = InputError(Path(error.source).name, error.field, error.found, error.allowed)
        raise HTTPException(400, str(shown)) from error


def guard_endpoints() -> None:
    """Check requests before MONAI Label parses them.

    Its endpoint answers 500 if there is no image or ``params`` is not a JSON object, and lets ``params`` replace the
    image. The endpoints of its datastore have no error but 500.
    """
    _replace(infer, "run_inference", _checked)
    for name in ("add_image", "save_label"):
        _replace(datastore, name, as_http_400())


def guard_server(upload_bytes: int) -> None:
    """Put a ``RequestGuard`` in front of the server; a training, which is a separate process, has none."""
    server = sys.modules.get("monailabel.app")
    if server is None:
        return
    options = {"upload_bytes": upload_bytes, "origins": [str(o).rstrip("/") for o in settings.MONAI_LABEL_CORS_ORIGINS]}
    if server.app.middleware_stack is None:
        server.app.add_middleware(RequestGuard, **options)
    elif not isinstance(server.app.middleware_stack, RequestGuard):  # it is already running when the app is started
        server.app.middleware_stack = RequestGuard(server.app.middleware_stack, **options)


def _replace(module: Any, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    function = getattr(module, name)
    if not hasattr(function, "__wrapped__"):  # the app may be started again in the same process
        setattr(module, name, wrap(function))


def _checked(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(
        background_tasks: Any,
        model: str,
        image: str = "",
        session_id: str = "",
        params: str = "{}",
        file: Any = None,
        label: Any = None,
        output: str | None = None,
    ) -> Any:
        with as_http_400():
            if not (image or session_id or file):
                raise InputError("request", "image", "no image", "image=ID of the datastore, or a file")
            content = check_params(params)
        if output == "json":  # writing a mask that is not sent would take longer than computing it
            params = json.dumps({"result_write_to_file": False, **content})
        return function(background_tasks, model, image, session_id, params, file, label, output)

    return call


def check_params(params: str) -> dict[str, Any]:
    """Return the content of ``params``.

    Raises:
        InputError: not a JSON object, or an image or a model in it, which belong in the URL.
    """
    content = parse_json(params or "{}", "request", "a JSON object", field="params")
    if not isinstance(content, dict):
        raise InputError("request", "params", type(content).__name__, "a JSON object")
    for name in ("image", "model"):
        if name in content:
            raise InputError("request", f"params.{name}", repr(content[name]), f"no {name}: the URL names it")
    return content
