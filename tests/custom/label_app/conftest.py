"""A real MONAI Label server, in an environment made from the app's requirements, used by REST.

Making the environment takes minutes and gigabytes; ``MCP_MEDSAM_LABEL_ENV=FOLDER`` keeps it there for the next run.
"""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import nibabel as nib
import pytest

APP = Path(__file__).parents[3] / "custom" / "label_app"


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """The interpreter of an environment with nothing but the app's requirements."""
    kept = os.environ.get("MCP_MEDSAM_LABEL_ENV")
    folder = Path(kept) if kept else tmp_path_factory.mktemp("label_env")
    python = folder / "bin" / "python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", APP / "requirements.txt"], check=True)
    return python


class Server:
    """Requests to the server."""

    def __init__(self, url, process):
        self.url, self.process = url, process

    def call(self, method, path, query=None, *, body=None, form=None, file=None):
        """Return the HTTP status and the bytes of the answer."""
        headers, data = {}, None
        if body is not None:
            headers, data = {"Content-Type": "application/json"}, json.dumps(body).encode()
        elif form is not None or file is not None:
            data, headers["Content-Type"] = multipart(form or {}, file)
        address = f"{self.url}{path}" + (f"?{urlencode(query)}" if query else "")
        request = urllib.request.Request(address, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=600) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def infer(self, dimension, image, params, *, output="json", png=None):
        query = {"output": output} | ({"image": image} if image else {})
        file = None if png is None else ("file", "picture.png", png)
        return self.call(
            "POST", f"/infer/mcp_medsam_{dimension}d", query, form={"params": json.dumps(params)}, file=file
        )

    def answer(self, *arguments, **named):
        status, content = self.infer(*arguments, **named)
        assert status == 200, content
        return json.loads(content)

    def volume(self, tmp_path, *arguments, **named):
        status, content = self.infer(*arguments, output="image", **named)
        assert status == 200, content
        (tmp_path / "mask.nii.gz").write_bytes(content)
        return nib.load(tmp_path / "mask.nii.gz")

    def megabytes(self, field="VmRSS"):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+)", status).group(1)) / 1024


def multipart(form, file):
    """Encode fields and one file (field, name, bytes) as a browser does."""
    mark = uuid.uuid4().hex
    parts = [f'--{mark}\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in form.items()]
    if file is not None:
        field, name, content = file
        head = f'--{mark}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n\r\n'
        parts.append(head.encode() + content + b"\r\n")
    return b"".join(parts) + f"--{mark}--\r\n".encode(), f"multipart/form-data; boundary={mark}"


@pytest.fixture(scope="session")
def start_server(python, tmp_path_factory):
    """Return a context that starts a server on a folder of studies with some ``--conf``."""

    @contextmanager
    def start(studies, conf):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        command = [python, "-m", "monailabel.main", "start_server", "--app", APP, "--studies", studies]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        for key, value in conf.items():
            command += ["--conf", key, str(value)]
        folder = tmp_path_factory.mktemp("server")
        environment = os.environ | {
            "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        with (folder / "log.txt").open("wb") as log:
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment)
        server = Server(f"http://127.0.0.1:{port}", process)
        try:
            deadline = time.monotonic() + 300
            while True:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log.txt").read_text()[-3000:]
                try:
                    if server.call("GET", "/info/")[0] == 200:
                        break
                except OSError:
                    time.sleep(1)
            yield server
        finally:
            process.terminate()
            process.wait(60)

    return start
