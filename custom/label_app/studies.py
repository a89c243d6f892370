"""The files a request may name: images of the datastore, and uploads of the client."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from monailabel.datastore.local import LocalDatastore
from monailabel.interfaces.datastore import Datastore

from custom.errors import InputError
from custom.label_app.names import check_index, check_upload, plain_name

_SHOWN = 3


class GuardedDatastore(LocalDatastore):
    """MONAI Label's folder of images, which joins ids and tags to paths: here they must be plain names."""

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Add an image; an id that is a path, or a file of another kind, is an ``InputError``."""
        if image_id:
            plain_name(image_id, "image")
        self._check_upload(image_id, image_filename)
        return super().add_image(image_id, image_filename, image_info)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Save a label; an unknown image or a tag that is a path is an ``InputError``."""
        plain_name(label_tag, "tag")
        if image_id not in self.list_images():
            raise unknown_image(image_id, self.list_images())
        self._check_upload(image_id, label_filename)
        return super().save_label(image_id, label_filename, label_tag, label_info)

    def _check_upload(self, name: str, file: str) -> None:
        own, ending = self._to_id(Path(file).name)
        check_upload(self._filename(name or own, ending), [pattern.replace("*", "") for pattern in self._extensions])

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        super()._init_from_datastore_file(throw_exception)
        check_index(self._datastore, self._datastore_config_path)


def unknown_image(image: object, known: Collection[str]) -> InputError:
    """Make the error for an image that is not in the datastore."""
    examples = ", ".join(sorted(known)[:_SHOWN]) + ", ..." * (len(known) > _SHOWN)
    allowed = f"one of the {len(known)} images of the datastore ({examples}), or a file"
    return InputError("request", "image", repr(image) if image else "nothing", allowed)


def locate(image: object, datastore: Datastore, folders: Collection[Path]) -> tuple[Path, str | None]:
    """Find the file of a request.

    MONAI Label opens any path of the server that ``image`` names; here only paths in ``folders`` are allowed.

    Args:
        image: id in the datastore, or the path of an upload that MONAI Label stored.
        datastore: the images.
        folders: the folders of these uploads.

    Returns:
        The file, and its id if it is in the datastore.

    Raises:
        InputError: no such image.
    """
    known = datastore.list_images()
    if isinstance(image, str) and image in known:
        return Path(datastore.get_image_uri(image)), image
    if isinstance(image, str) and image and "\x00" not in image:
        path = Path(image).resolve()
        if path.is_file() and any(folder.resolve() in path.parents for folder in folders):
            return path, None
    raise unknown_image(image, known)
