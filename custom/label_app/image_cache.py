"""Cache the last images: a volume takes seconds to unpack, and a user clicks every few seconds."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

from custom.errors import InputError
from custom.images.formats import formats, has_ending
from custom.images.image import Image
from custom.images.reading import read_image


class ImageCache:
    """The last images that were read, within a number of bytes.

    Args:
        limit: bytes of pixels kept; a larger image is read every time.

    Attributes:
        size: bytes kept now.
    """

    def __init__(self, limit: int) -> None:
        self.limit, self.size = limit, 0
        self._kept: OrderedDict[tuple, Image] = OrderedDict()

    def read(self, path: Path, modality: str | None) -> Image:
        """Read an image, unless the same file is cached for the same modality, which decides its window.

        Raises:
            InputError: a file of another kind, or one that cannot be read.
        """
        # Without DICOM: MONAI Label converts series to NIfTI, and its pydicom is too old to read them here.
        known = [module for name, module in formats().items() if name != "dicom" and module.ENDINGS]
        if not any(has_ending(path, module.ENDINGS) for module in known):
            allowed = ", ".join(module.DESCRIPTION for module in known)
            raise InputError(path.name, "image", f"a file named *{path.suffix}", allowed)
        stat = path.stat()
        key = (str(path), stat.st_mtime_ns, stat.st_size, modality)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        image = read_image(path, modality)
        if image.array.nbytes <= self.limit:
            self._kept[key] = image
            self.size += image.array.nbytes
        while self.size > self.limit:
            self.size -= self._kept.popitem(last=False)[1].array.nbytes
        return image
