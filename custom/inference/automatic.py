"""What "auto" checks and prepares: whether there is a GPU, and a checkpoint's export for OpenVINO.

Exports are stored in the user's cache folder, or in the folder of the environment variable ``MCP_MEDSAM_CACHE``. The
export needs PyTorch and runs in its own process, so that this one does not import it.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
import threading
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from custom.errors import InputError
from custom.export.folder import STAGES, VERSION, locked, read_description
from custom.version import __version__

CACHE_VARIABLE = "MCP_MEDSAM_CACHE"
_EXPORT = f"{__package__.rpartition('.')[0]}.export"  # an installed package has another name
_FIRST_USE = "first use of {}: the network is prepared for this processor, about half a minute, once"


def sees_gpu() -> bool:
    """Return whether PyTorch can use a GPU; never raises. Without an NVIDIA GPU, PyTorch is not imported."""
    if not _cuda_devices():
        return False
    try:
        import torch

        return torch.cuda.is_available()
    except Exception:  # not installed, or its libraries do not match the system
        return False


def _cuda_devices() -> int:
    """Count the GPUs that NVIDIA's driver offers this process."""
    count = ctypes.c_int()
    try:
        driver = ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
        failed = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    except Exception:  # no driver, or something else with its name
        return 0
    return 0 if failed else count.value


def cache_folder() -> Path:
    """Return the folder in which exports are stored."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).absolute()
    from platformdirs import user_cache_path

    return user_cache_path("mcp-medsam")


def exported(checkpoint: Path, digest: str) -> Path:
    """Return the folder with the export of a checkpoint, which is made if the cache does not have it yet.

    The same export serves every precision. If several processes need it, one makes it and the others wait.

    Args:
        checkpoint: the file.
        digest: first 16 hexadecimal digits of its SHA-256.

    Raises:
        InputError: OpenVINO is not installed, the cache cannot be written, or the export fails.
    """
    try:
        openvino = version("openvino")
    except PackageNotFoundError:
        raise InputError("OpenVINO", "package", "not installed", "`pip install openvino`") from None
    cache = cache_folder()
    folder = cache / "openvino" / f"{digest}-{VERSION}-{__version__}-{openvino}"
    if _holds(folder, digest):
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(cache, CACHE_VARIABLE, error.strerror, "a folder that can be written") from None
    if not os.access(folder.parent, os.W_OK):
        raise InputError(cache, CACHE_VARIABLE, "a folder that cannot be written", "a writable folder")
    print(_FIRST_USE.format(checkpoint.name), file=sys.stderr, flush=True)
    with locked(cache):
        if not _holds(folder, digest):  # another process may have made it in the meantime
            shutil.rmtree(folder, ignore_errors=True)
            _export(checkpoint, folder)
    if not _holds(folder, digest):
        raise InputError(checkpoint, "export", "weights that changed during the export", "weights that stay the same")
    return folder


def _holds(folder: Path, digest: str) -> bool:
    """Return whether a folder holds the whole export of the weights with this digest."""
    try:
        return read_description(folder).digest == digest
    except InputError:
        return False


def _export(checkpoint: Path, folder: Path) -> None:
    """Export in a separate process, with a progress bar on a terminal."""
    from tqdm import tqdm

    command = [sys.executable, "-m", _EXPORT, "--checkpoint", str(checkpoint.absolute()), "--out", str(folder)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    said: list[str] = []
    try:
        child = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise InputError(checkpoint, "export", f"{sys.executable!r}: {error}", "a Python that can be started") from None

    def listen() -> None:
        for line in child.stdout:
            said.append(line.strip())

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    form = "{percentage:3.0f}%|{bar}| {elapsed}"
    with child, tqdm(total=len(STAGES), bar_format=form, disable=None, leave=False) as bar:
        try:
            while listener.is_alive():
                listener.join(0.5)
                bar.n = sum(line in STAGES for line in said)
                bar.refresh()
        except BaseException:
            child.kill()
            raise
    if child.returncode:
        errors = [line.removeprefix("error: ") for line in said if line and line not in STAGES]
        found = errors[-1] if errors else f"exit code {child.returncode}"
        raise InputError(checkpoint, "export", found, "a network that can be exported; or the backend torch")
