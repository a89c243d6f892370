"""The weights in use: those the server was started with, or those trained from them on these studies."""

from __future__ import annotations

from pathlib import Path

from custom.inference.models import Model
from custom.label_app.conf import Conf

FOLDER = ".mcp_medsam"  # hidden: MONAI Label treats visible files in the studies as images


class Weights:
    """Finds the weights and notices new ones.

    Trained weights lie in ``<studies>/.mcp_medsam/<digest of the weights they started from>/model.pt``, so that other
    studies and another ``--conf checkpoint`` have their own. To go back, delete that folder.

    Args:
        conf: how the server was started.
        home: the folder of the studies; the app's if they are on another server.

    Raises:
        InputError: the weights to start from cannot be used.
    """

    def __init__(self, conf: Conf, home: Path) -> None:
        self.conf, self._base = conf, conf.network()
        self.folder = home / FOLDER / self._base.facts["digest"]
        self._model, self._stamp = self._base, None

    @property
    def trained(self) -> Path:
        """Where the training writes its weights."""
        return self.folder / "model.pt"

    @property
    def checkpoint(self) -> str:
        """The weights a training starts from: the newest."""
        return str(self.trained) if self.trained.is_file() else self.conf.base_checkpoint()

    def current(self) -> Model:
        """Return the model to use now: the same object until the weights change.

        The training runs in another process, so only the file shows new weights.
        """
        if not self.conf.trainable:
            return self._base
        try:
            stat = self.trained.stat()
            stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        except FileNotFoundError:
            stamp = None
        if stamp != self._stamp:
            self._model = self._base if stamp is None else self.conf.network(str(self.trained))
            self._stamp = stamp
        return self._model
