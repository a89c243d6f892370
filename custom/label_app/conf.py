"""The options of the server: ``--conf KEY VALUE``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import get_args

from custom.errors import InputError
from custom.inference.models import BACKENDS, Model, choose_model, default_checkpoint
from custom.label_app.roi import Meaning

_OF_THE_SERVER = ("server_mode",)  # MONAI Label's own


@dataclass(frozen=True, kw_only=True)
class Conf:
    """The options the server was started with.

    Attributes:
        backend: auto, torch or openvino; see ``custom.Predictor``.
        checkpoint: weights; by default ``bundle/models/model.pt`` if it exists, else LiteMedSAM's.
        model: folder of an exported network, in place of a checkpoint; it cannot be trained.
        clip: the CLIP the weights were trained with: auto, none, a hub name or a local folder.
        precision: of the arithmetic, f32 or bf16.
        device: where PyTorch computes, e.g. cpu or cuda:1.
        clicks: what clicks without a box are: points on and beside the object, or the first two are corners of a box.
        labels: names of objects offered in the client, comma-separated.
        embeddings: image embeddings kept between requests, 4 MB each.
        image_mb: megabytes of images kept between requests.
        upload_mb: largest request in megabytes.

    Raises:
        InputError: a value that is not allowed.
    """

    backend: str = "auto"
    checkpoint: str | None = None
    model: str | None = None
    clip: str = "auto"
    precision: str | None = None
    device: str | None = None
    clicks: str = "points"
    labels: str = "object"
    embeddings: int = 128
    image_mb: int = 512
    upload_mb: int = 1024

    def __post_init__(self) -> None:
        for name, allowed in (("backend", BACKENDS), ("clicks", get_args(Meaning))):
            if getattr(self, name) not in allowed:
                raise InputError("--conf", name, repr(getattr(self, name)), ", ".join(allowed))
        if not self.names:
            raise InputError("--conf", "labels", repr(self.labels), 'names such as "liver,tumor"')
        for name in ("embeddings", "image_mb", "upload_mb"):
            try:
                number = int(getattr(self, name))
            except ValueError:
                number = 0
            if number < 1:
                raise InputError("--conf", name, repr(getattr(self, name)), "a whole number from 1 up")
            object.__setattr__(self, name, number)

    @classmethod
    def parse(cls, conf: Mapping[str, str]) -> Conf:
        """Parse the options that MONAI Label passes on.

        Raises:
            InputError: an unknown key or a value that is not allowed.
        """
        names = [field.name for field in fields(cls)]
        given = {key: value for key, value in conf.items() if key not in _OF_THE_SERVER}
        for key in given:
            if key not in names:
                raise InputError("--conf", key, "an unknown key", ", ".join(names))
        return cls(**given)

    @property
    def names(self) -> list[str]:
        """Names of objects offered in the client."""
        return [name for name in (part.strip() for part in self.labels.split(",")) if name]

    @property
    def trainable(self) -> bool:
        """Whether the weights can be trained: an exported network cannot."""
        return self.model is None

    def base_checkpoint(self) -> str:
        """Return the weights to start from."""
        return self.checkpoint or default_checkpoint()

    def network(self, checkpoint: str | None = None) -> Model:
        """Return the network to start from, or one with other weights.

        Raises:
            InputError: no such checkpoint, folder or precision, or settings that contradict each other.
        """
        return choose_model(
            checkpoint=checkpoint or (None if self.model else self.base_checkpoint()),
            backend=self.backend,
            model=self.model,
            precision=self.precision,
            device=self.device,
            clip=self.clip,
        )
