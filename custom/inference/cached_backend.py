"""Cache results of the last images and prompts: a second box on a slice needs only the decoder, a click not even it."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import numpy as np

from custom.inference.backend import Backend, Decoded
from custom.prompts import Prompts

#: Cached results of the decoder, 256 kB per box: clients request the numbers and then the mask.
ANSWERS = 64
#: Cached contents of boxes, 4 MB each.
CONTENTS = 8
_FIELDS = tuple(name.encode() for name in Prompts._fields)

Kept = TypeVar("Kept")


class Embedding(NamedTuple):
    """An embedding and the digest of the image it belongs to."""

    key: bytes
    value: object


class CachedBackend:
    """A ``Backend`` that encodes an image only if it is not cached, and decodes the same prompts once.

    An image is identified by the bytes the encoder would see. So a slice of a volume, the same slice in another file
    and a repeated upload are found, and another window or another slice is not. Not thread-safe.

    Args:
        backend: encodes and decodes.
        capacity: number of embeddings kept, 4 MB each in float32; the least recently used is dropped first.

    Attributes:
        encoded: number of images the encoder has seen.
    """

    def __init__(self, backend: Backend, *, capacity: int) -> None:
        self.backend, self.capacity, self.encoded = backend, capacity, 0
        self._embeddings: OrderedDict[bytes, Embedding] = OrderedDict()
        self._answers: OrderedDict[bytes, Decoded] = OrderedDict()
        self._contents: OrderedDict[bytes, np.ndarray | None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._embeddings)

    @property
    def uses_modality(self) -> bool:
        """Whether the network takes a modality prompt."""
        return self.backend.uses_modality

    @property
    def takes_clicks(self) -> bool:
        """Whether the weights were trained with clicks."""
        return self.backend.takes_clicks

    @property
    def click_tokens(self) -> bool:
        """Whether clicks change the decoder's answer to a box."""
        return self.backend.click_tokens

    @property
    def clip_image(self) -> bool:
        """Whether the network takes the CLIP feature of each crop."""
        return self.backend.clip_image

    @property
    def crop_size(self) -> int:
        """Side of the crops in pixels."""
        return self.backend.crop_size

    def encode(self, images: np.ndarray) -> list[Embedding]:
        """Return the embeddings of images in the frame, Bx3x256x256 float32 in [0, 1]."""
        return [self._encoded(image) for image in images]

    def clip_features(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray | None:
        """Return CLIP's feature of the image inside each box (see ``Backend``)."""
        return self.backend.clip_features(image, boxes)

    def encode_content(self, crops: np.ndarray) -> np.ndarray | None:
        """Return the dense content prompt of crops (see ``Backend``)."""
        return _recall(self._contents, _digest(crops), lambda: self.backend.encode_content(crops), CONTENTS)

    def decode(self, embedding: Embedding, prompts: Prompts, answer: Decoded | None = None) -> Decoded:
        """Decode N objects of one image (see ``Backend``); what clicks leave unchanged is not computed again."""
        parts = [b"" if value is None else np.asarray(value) for value in prompts]
        key = _digest(embedding.key, *(part for pair in zip(_FIELDS, parts, strict=True) for part in pair))
        return _recall(self._answers, key, lambda: self._decoded(embedding, prompts, answer), ANSWERS)

    def _decoded(self, embedding: Embedding, prompts: Prompts, answer: Decoded | None) -> Decoded:
        if self.click_tokens and prompts.content is None and prompts.crops is not None:
            prompts = prompts._replace(content=self.encode_content(prompts.crops))  # clicks leave it as it is
        return self.backend.decode(embedding.value, prompts, answer)

    def _encoded(self, image: np.ndarray) -> Embedding:
        key = _digest(image)

        def encode() -> Embedding:
            self.encoded += 1
            # One by one: embeddings of a batch may be views of one array, and one of them would keep it all in memory.
            (value,) = self.backend.encode(image[None])
            return Embedding(key, value)

        return _recall(self._embeddings, key, encode, self.capacity)


def _digest(*parts: np.ndarray | bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).data.cast("B"))
    return digest.digest()


def _recall(kept: OrderedDict[bytes, Kept], key: bytes, make: Callable[[], Kept], capacity: int) -> Kept:
    """Return what is cached under a key, or make and cache it; the least recently used is dropped first."""
    if key not in kept:
        kept[key] = make()
    kept.move_to_end(key)
    while len(kept) > capacity:
        kept.popitem(last=False)
    return kept[key]
