"""Cache the output of the frozen part of an image encoder in files: a training encodes each picture once."""

from __future__ import annotations

import hashlib
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from torch import nn

from custom.atomic_write import write_whole
from custom.errors import InputError


class EmbeddingCache:
    """Image embeddings, or the features of a frozen part, by the digest of encoder, precision and image.

    The digest prevents wrong hits: a flipped image, another encoder or another autocast precision has another file.
    Features are stored in float16 (2 to 3 MB each), and new ones are rounded in the same way, so that a run does not
    depend on files of earlier runs.

    Args:
        folder: folder of the files; created if needed. Delete it to start again.

    Raises:
        InputError: the folder cannot be created.
    """

    def __init__(self, folder: str | PathLike[str]) -> None:
        self.folder = Path(folder)
        self._encoder_digest: bytes | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(folder, "embedding_cache", error.strerror, "a folder that can be written") from error

    @torch.no_grad()
    def encode(self, encoder: nn.Module, image: torch.Tensor) -> torch.Tensor:
        """Return ``encoder(image)``, from the file if there is one: Bx3xHxW -> BxCxhxw, float32."""
        paths = [self._path(encoder, single) for single in image]
        missing = [i for i, path in enumerate(paths) if not path.is_file()]
        if missing:
            for i, fresh in zip(missing, encoder(image[missing]), strict=True):
                array = fresh.to("cpu", torch.float16).numpy()
                write_whole(paths[i], lambda file, array=array: np.save(file, array, allow_pickle=False))
        embeddings = torch.from_numpy(np.stack([np.load(path, allow_pickle=False) for path in paths]))
        return embeddings.to(image.device, torch.float32)

    def _path(self, encoder: nn.Module, image: torch.Tensor) -> Path:
        device = image.device.type
        precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else image.dtype
        digest = hashlib.blake2b(self._digest_of(encoder), digest_size=16)
        digest.update(f"{precision} {tuple(image.shape)}".encode())
        digest.update(_bytes(image))
        return self.folder / f"{digest.hexdigest()}.npy"

    def _digest_of(self, encoder: nn.Module) -> bytes:
        if self._encoder_digest is None:  # frozen, so one computation is enough
            digest = hashlib.blake2b(digest_size=16)
            for name, tensor in encoder.state_dict().items():
                digest.update(name.encode())
                digest.update(_bytes(tensor))
            self._encoder_digest = digest.digest()
        return self._encoder_digest


def _bytes(tensor: torch.Tensor) -> memoryview:
    return tensor.detach().cpu().contiguous().numpy().data.cast("B")
