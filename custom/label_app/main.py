"""MONAI Label app: ``monailabel start_server --app custom/label_app --studies FOLDER --host 127.0.0.1``."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

_ROOT = str(Path(__file__).resolve().parents[2])  # MONAI Label loads this file alone, not as part of a package
if _ROOT not in sys.path:
    sys.path.insert(0, _ROOT)

from monailabel.config import settings  # noqa: E402
from monailabel.interfaces.app import MONAILabelApp  # noqa: E402
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag  # noqa: E402
from monailabel.interfaces.tasks.infer_v2 import InferTask  # noqa: E402
from monailabel.interfaces.tasks.strategy import Strategy  # noqa: E402
from monailabel.interfaces.tasks.train import TrainTask  # noqa: E402
from monailabel.tasks.activelearning.random import Random  # noqa: E402

from custom.errors import InputError  # noqa: E402
from custom.label_app.bad_requests import as_http_400, guard_endpoints, guard_server  # noqa: E402
from custom.label_app.conf import Conf  # noqa: E402
from custom.label_app.infer_task import BoxTask  # noqa: E402
from custom.label_app.names import plain_name  # noqa: E402
from custom.label_app.scores import PredictedIoU  # noqa: E402
from custom.label_app.service import SegmentationService  # noqa: E402
from custom.label_app.strategy import LowestPredictedIoU  # noqa: E402
from custom.label_app.studies import GuardedDatastore, locate  # noqa: E402
from custom.label_app.train_task import FineTune  # noqa: E402
from custom.label_app.weights import Weights  # noqa: E402
from custom.version import __version__  # noqa: E402


class MCPMedSAMApp(MONAILabelApp):
    """Boxes and clicks in 2D and 3D, fine-tuning on saved labels, and the next image to label."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        # Uploads and results get their own folder, so that no request can name other temporary files.
        self._temporary = tempfile.TemporaryDirectory(prefix="mcp_medsam_")
        tempfile.tempdir = self._temporary.name
        self.settings = Conf.parse(conf)
        guard_endpoints()
        guard_server(self.settings.upload_mb * 2**20)
        local = not studies.startswith(("http://", "https://"))
        self.weights = Weights(self.settings, Path(studies if local else app_dir))
        self.service = SegmentationService(self.weights, self.settings)
        self.scores = PredictedIoU(self._glance)
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="MCP-MedSAM",
            description="Segments what boxes and clicks mark, in eleven imaging modalities",
            version=__version__,
            labels=self.settings.names,
        )

    def init_datastore(self) -> Datastore:
        """Return the datastore; a folder of images is guarded against ids and tags that are paths."""
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()
        return GuardedDatastore(
            self.studies,
            extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def init_infers(self) -> dict[str, InferTask]:
        """Return the two tasks."""
        return {
            f"mcp_medsam_{dimension}d": BoxTask(self.service, dimension=dimension, labels=self.settings.names)
            for dimension in (2, 3)
        }

    def init_trainers(self) -> dict[str, TrainTask]:
        """Return the training; an exported network cannot be trained."""
        return {"mcp_medsam": FineTune(self.weights)} if self.settings.trainable else {}

    def init_strategies(self) -> dict[str, Strategy]:
        """Return the strategies; clients request "random" by default."""
        return {"lowest_predicted_iou": LowestPredictedIoU(self.scores, self.weights), "random": Random()}

    def infer(self, request: dict[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Answer a request for masks; see ``BoxTask``. Bad input is HTTP 400."""
        datastore = datastore or self.datastore()
        with as_http_400():
            task = self._infers.get(request.get("model"))
            if task is None:
                raise InputError("request", "model", repr(request.get("model")), ", ".join(self._infers))
            tag = plain_name(request.get("label_tag", DefaultLabelTag.ORIGINAL.value), "label_tag")
            opened = self.sessions()  # volumes opened in 3D Slicer that are not in the datastore
            folders = [Path(self._temporary.name), *([] if opened is None else [Path(opened.store_path)])]
            path, image = locate(request.get("image"), datastore, folders)
            file, report = task({**request, "image": str(path)})
        label = file
        if image is not None:
            self._note(datastore, image, report)
            if request.get("save_label"):
                label = datastore.save_label(image, file, tag, {"model": request["model"], "params": report})
        return {"label": label, "tag": tag, "file": file, "params": report}

    def train(self, request: dict[str, Any]) -> dict[str, Any]:
        """Train; bad input is HTTP 400, or the reason in the details of a training in the background."""
        with as_http_400():
            if request.get("model") not in self._trainers:
                allowed = ", ".join(self._trainers) or "none: a server started with --conf model cannot train"
                raise InputError("request", "model", repr(request.get("model")), allowed)
            return super().train(request)

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """Propose the next image to label; bad input is HTTP 400."""
        with as_http_400():
            if request.get("strategy") not in self._strategies:
                raise InputError("request", "strategy", repr(request.get("strategy")), ", ".join(self._strategies))
            return super().next_sample(request)

    def _note(self, datastore: Datastore, image: str, report: dict[str, Any]) -> None:
        """Store what the strategy and the training need."""
        ious = [box["iou"] for box in report["boxes"]]
        self.scores.note(image, sum(ious) / len(ious), report["digest"])
        declared = report["modality"] if report["modality_source"] == "argument" else None
        if declared and datastore.get_image_info(image).get("modality") != declared:
            datastore.update_image_info(image, {"modality": declared})

    def _glance(self, image: str) -> float:
        """Return the predicted IoU of a box around the middle slice of an image of the datastore."""
        info = self.datastore().get_image_info(image)
        return self.service.glance(Path(self.datastore().get_image_uri(image)), info.get("modality"))
