"""The choice of the backend, and the automatic export."""

import hashlib
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import pytest

from custom.errors import InputError
from custom.export.folder import Description, write_folder
from custom.inference import automatic, models, openvino_backend
from custom.inference.models import Model, choose_model
from custom.lite_medsam import lite_medsam_path

ROOT = Path(__file__).parents[3]
# Stands for ``custom.export``: the same options, and an export that holds no graphs.
EXPORTER = """
import hashlib, os, signal, sys, time
from pathlib import Path
from custom.export.folder import STAGES, Description, write_folder
checkpoint, out = sys.argv[2], sys.argv[4]
name = os.environ["HOW"]
with open(os.environ["LOG"], "a") as log:
    print(name, file=log)
for stage in STAGES:
    print(stage, file=sys.stderr, flush=True)
if name == "fails":
    sys.exit("a warning of somebody else\\nerror: weights.pt: checkpoint: found nothing")
def write(folder):
    (folder / "decoder.bin").touch()
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.3)
switches = dict.fromkeys(("clip_text", "modality_embedding", "clip_image", "content_cnn"), True)
digest = "0" * 16 if name == "changed" else hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()[:16]
write_folder(out, Description(checkpoint="weights.pt", digest=digest, precision="f32", components=switches,
    modalities=("US",), crop_size=64, clip_width=512, takes_clicks=False, click_tokens=False,
    graphs=dict.fromkeys(("encoder", "content", "decoder"), {"inputs": {}, "outputs": {}}),
    left_out=("clip_image",) if name == "clip" else (), made_with={}), write)
"""


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine without a GPU and with bfloat16, an empty cache, and an export that takes no time."""
    (tmp_path / "exporter.py").write_text(EXPORTER)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(automatic, "_EXPORT", "exporter")
    monkeypatch.setattr(models, "sees_gpu", lambda: False)
    monkeypatch.setattr(openvino_backend, "_computes_bfloat16", lambda: True)
    for name, value in (("MCP_MEDSAM_CACHE", tmp_path / "cache"), ("LOG", tmp_path / "log"), ("HOW", "exports")):
        monkeypatch.setenv(name, str(value))


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"weights")
    return str(path)


def exports(tmp_path):
    """The number of exports."""
    log = tmp_path / "log"
    return len(log.read_text().split()) if log.exists() else 0


def test_first_use_exports_and_says_so(weights, tmp_path, capsys):
    model = choose_model(checkpoint=weights)
    assert exports(tmp_path) == 0 and not (tmp_path / "cache").exists()  # bad input elsewhere is found before
    digest = hashlib.sha256(b"weights").hexdigest()[:16]
    expected = {"backend": "openvino", "precision": "bf16", "checkpoint": weights, "digest": digest}
    assert model.facts == expected and exports(tmp_path) == 1
    assert capsys.readouterr().err.startswith("first use of weights.pt: the network is prepared")
    for backend, precision in (("openvino", "f32"), ("auto", None)):
        facts = choose_model(checkpoint=weights, backend=backend, precision=precision).facts
        assert facts == expected | {"precision": precision or "bf16"}
    assert exports(tmp_path) == 1 and capsys.readouterr().err == ""
    (folder,) = (tmp_path / "cache" / "openvino").iterdir()
    assert folder.name.startswith(f"{digest}-")


def test_a_progress_bar_that_moves(weights, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    choose_model(checkpoint=weights).facts  # noqa: B018
    assert "100%" in capsys.readouterr().err


def test_a_processor_without_bfloat16(weights, monkeypatch):
    monkeypatch.setattr(openvino_backend, "_computes_bfloat16", lambda: False)
    for precision in (None, "bf16", "f32"):
        assert choose_model(checkpoint=weights, precision=precision).facts["precision"] == "f32"


def test_the_digest_is_computed_once(weights, monkeypatch, caplog):
    calls = []
    monkeypatch.setattr(models.hashlib, "sha256", lambda data: calls.append(1) or hashlib.new("sha256", data))
    monkeypatch.setenv("HOW", "fails")
    model = choose_model(checkpoint=weights)
    assert model.facts["backend"] == "torch" and model.facts is model.facts and calls == [1]


@pytest.mark.parametrize("how", ["threads", "processes"])
def test_several_at_the_same_time(how, weights, tmp_path):
    """Threads share one model and processes share the cache: one exports, and the others find it."""
    if how == "processes":
        code = "import custom.inference.automatic as a\na._EXPORT = 'exporter'\n"
        code += f"from custom.inference.models import choose_model\nchoose_model(checkpoint={weights!r}).facts"
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "CUDA_VISIBLE_DEVICES": ""}
        started = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(3)]
        assert [process.wait() for process in started] == [0, 0, 0]
    else:
        model = choose_model(checkpoint=weights)
        with ThreadPoolExecutor(4) as pool:
            assert len({id(facts) for facts in pool.map(lambda _: model.facts, range(4))}) == 1
    assert exports(tmp_path) == 1
    assert len(list((tmp_path / "cache" / "openvino").iterdir())) == 1


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("fails", "export: found weights.pt: checkpoint: found nothing; allowed: a network that can be exported"),
        ("killed", "export: found exit code -9"),
        ("changed", "export: found weights that changed during the export"),
        ("clip", "clip: found weights that use a CLIP (clip_image), which is not exported; allowed: the backend torch"),
    ],
)
def test_a_failed_export(how, reason, weights, monkeypatch, caplog, tmp_path):
    monkeypatch.setenv("HOW", how)
    model = choose_model(checkpoint=weights)
    expected = {"backend": "torch", "precision": "f32", "checkpoint": weights, "clip": "auto"}
    assert model.facts == expected | {"digest": hashlib.sha256(b"weights").hexdigest()[:16]}
    (record,) = caplog.records
    assert "PyTorch runs the network" in record.getMessage() and reason in record.getMessage()
    with pytest.raises(InputError) as error:
        choose_model(checkpoint=weights, backend="openvino").facts  # noqa: B018
    assert reason in str(error.value)

    if how == "clip":
        assert choose_model(checkpoint=weights, clip="none").facts["backend"] == "openvino"
        return
    monkeypatch.setenv("HOW", "exports")
    assert choose_model(checkpoint=weights).facts["backend"] == "openvino"
    assert len(list((tmp_path / "cache" / "openvino").iterdir())) == 1  # nothing is left of the first one


def test_a_cache_that_cannot_be_written(weights, monkeypatch, caplog, tmp_path):
    for broken in ("file", "folder"):
        if broken == "file":
            monkeypatch.setenv("MCP_MEDSAM_CACHE", weights)
        else:
            monkeypatch.setenv("MCP_MEDSAM_CACHE", str(tmp_path / "cache"))
            monkeypatch.setattr(automatic.os, "access", lambda *_: False)
        assert choose_model(checkpoint=weights).facts["backend"] == "torch"
        assert "MCP_MEDSAM_CACHE" in caplog.records[-1].getMessage()
    assert exports(tmp_path) == 0


def test_damaged_exports_are_made_again(weights, tmp_path):
    choose_model(checkpoint=weights).facts  # noqa: B018
    (folder,) = (tmp_path / "cache" / "openvino").iterdir()
    (folder / "model.json").unlink()
    assert choose_model(checkpoint=weights).facts["backend"] == "openvino" and exports(tmp_path) == 2


def test_without_openvino(weights, monkeypatch, caplog):
    def missing(name):
        raise PackageNotFoundError(name)

    with monkeypatch.context() as patch:
        patch.setattr(automatic, "version", missing)
        assert choose_model(checkpoint=weights).facts["backend"] == "torch"
        with pytest.raises(InputError, match="OpenVINO: package: found not installed; allowed: `pip install openvino`"):
            choose_model(checkpoint=weights, backend="openvino").facts  # noqa: B018
    monkeypatch.setitem(sys.modules, "custom.inference.openvino_backend", None)  # it cannot be imported
    assert choose_model(checkpoint=weights).facts["backend"] == "torch"
    assert all("pip install openvino" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorrt"}, "backend: found 'tensorrt'; allowed: auto, torch, openvino"),
        ({"precision": "int8"}, "precision: found 'int8'; allowed: f32, bf16"),
        ({"checkpoint": "missing.pt"}, "missing.pt: checkpoint: found no file"),
        ({"backend": "openvino", "device": "cpu"}, "device: found 'cpu'; allowed: no device with OpenVINO"),
        ({"model": "folder", "device": "cuda"}, "device: found 'cuda'; allowed: no device with OpenVINO"),
        ({"model": "folder", "backend": "torch"}, "backend: found 'torch'; allowed: auto, openvino"),
        ({"model": "folder", "checkpoint": "a.pt"}, "checkpoint: found 'a.pt'; allowed: none with the folder"),
        ({"model": "folder", "clip": "/clip"}, "clip: found '/clip'; allowed: none with the folder"),
        ({"model": "folder"}, "folder: model: found no such file"),
    ],
)
def test_options_that_cannot_be_used(options, message):
    with pytest.raises(InputError) as error:
        choose_model(**options)
    assert message in str(error.value)


def test_a_device_or_a_gpu_means_pytorch(weights, monkeypatch, tmp_path):
    assert choose_model(checkpoint=weights, device="cpu", precision="bf16").facts["precision"] == "bf16"
    monkeypatch.setattr(models, "sees_gpu", lambda: True)
    assert choose_model(checkpoint=weights).facts["backend"] == "torch"
    assert choose_model(checkpoint=weights, backend="openvino").facts["backend"] == "openvino"


@pytest.mark.parametrize(
    ("driver", "torch", "seen"),
    [
        (OSError, True, False),
        (SimpleNamespace(), True, False),  # a library without the functions
        (SimpleNamespace(cuInit=lambda _: 100), True, False),  # no device
        (SimpleNamespace(cuInit=lambda _: 0, cuDeviceGetCount=lambda count: 3), True, False),
        (SimpleNamespace(cuInit=lambda _: 0, cuDeviceGetCount=lambda count: 0), True, False),  # none of them visible
        (1, True, True),
        (2, False, False),
        (1, ImportError, False),
        (1, OSError, False),
    ],
)
def test_a_gpu_is_found_without_an_error(driver, torch, seen, monkeypatch):
    def count_to(n):
        def count(pointer):
            pointer._obj.value = n
            return 0

        return SimpleNamespace(cuInit=lambda _: 0, cuDeviceGetCount=count)

    def load(_):
        if driver is OSError:
            raise OSError("libcuda.so.1: cannot open shared object file")
        return count_to(driver) if isinstance(driver, int) else driver

    def available():
        if torch is OSError:
            raise OSError("libcudart.so: cannot open shared object file")
        return torch

    monkeypatch.setattr(automatic.ctypes, "CDLL", load)
    stand_in = None if torch is ImportError else SimpleNamespace(cuda=SimpleNamespace(is_available=available))
    monkeypatch.setitem(sys.modules, "torch", stand_in)
    assert automatic.sees_gpu() is seen


def test_default_weights(weights, monkeypatch, tmp_path):
    monkeypatch.setattr(models, "DEFAULT_CHECKPOINT", Path(weights))
    assert choose_model(backend="torch").facts["checkpoint"] == weights
    monkeypatch.setattr(models, "DEFAULT_CHECKPOINT", tmp_path / "missing.pt")
    digest = hashlib.sha256(lite_medsam_path().read_bytes()).hexdigest()[:16]
    facts = choose_model(backend="torch", clip="none").facts
    assert facts["checkpoint"] == "lite_medsam" and facts["digest"] == digest


def test_cache_of_the_user(monkeypatch):
    monkeypatch.delenv("MCP_MEDSAM_CACHE")
    assert automatic.cache_folder().is_absolute() and automatic.cache_folder().name == "mcp-medsam"


@pytest.mark.parametrize(
    ("exported", "asked", "expected"),
    [("f32", None, "f32"), ("f32", "bf16", "bf16"), ("bf16", None, "bf16"), ("int8", None, "int8")],
)
def test_an_exported_folder(exported, asked, expected, tmp_path, describe):
    write_folder(tmp_path / "model", describe(exported), lambda folder: None)
    facts = choose_model(model=str(tmp_path / "model"), precision=asked).facts
    assert facts == {"backend": "openvino", "precision": expected, "checkpoint": "a.pt", "digest": "0" * 16}
    if exported != "int8":
        with pytest.raises(InputError, match="precision: found 'int8'; allowed: f32, bf16"):
            choose_model(model=str(tmp_path / "model"), precision="int8")


@pytest.fixture
def describe():
    """Return a function that describes an export without graphs."""

    def description(precision):
        return Description(
            checkpoint="a.pt",
            digest="0" * 16,
            precision=precision,
            components=dict.fromkeys(("clip_text", "modality_embedding", "clip_image", "content_cnn"), False),
            modalities=("US",),
            crop_size=64,
            clip_width=512,
            takes_clicks=False,
            click_tokens=False,
            graphs=dict.fromkeys(("encoder", "decoder"), {"inputs": {}, "outputs": {}}),
            left_out=(),
            made_with={},
        )

    return description


def test_a_backend_is_started_once():
    made = []
    model = Model(facts={"backend": "fake"}, make=lambda: made.append(1) or object())
    with ThreadPoolExecutor(4) as pool:
        assert len({id(backend) for backend in pool.map(lambda _: model.start(), range(8))}) == 1
    assert made == [1] and model.facts == {"backend": "fake"}


USE = """
import sys, time
import numpy as np
from custom.inference.models import choose_model
from custom.prompts import Prompts
model = choose_model(checkpoint="lite_medsam")
backend = model.start()
(embedding,) = backend.encode(np.zeros((1, 3, 256, 256), np.float32))
box, crop = np.array([[20, 20, 90, 90]], np.float32), np.zeros((1, 3, 64, 64), np.float32)
prompts = Prompts(boxes=box, crops=crop, crop_boxes=box, modality=-1)
assert np.isfinite(backend.decode(embedding, prompts).mask_logits).all()
assert not {"torch", "monai", "transformers", "scipy", "skimage"} & set(sys.modules), "slow imports"
print(*model.facts.values())
"""


def test_the_real_network_twice(tmp_path):
    """As users start it: the first use exports; neither use imports PyTorch."""
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
    for first in (True, False):
        done = subprocess.run([sys.executable, "-c", USE], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("openvino ") and "lite_medsam" in done.stdout
        assert ("first use of lite_medsam.pth" in done.stderr) == first, done.stderr
    (folder,) = (tmp_path / "cache" / "openvino").iterdir()
    assert len(list((folder / "compiled").iterdir())) == 2
