"""Malformed COCO annotations."""

import json

from PIL import Image

from tests.data_prep.malformed.inputs import GREY, SKIPPED, cut

SQUARE = [2, 2, 20, 2, 20, 20, 2, 20]


def coco_good(root):
    Image.fromarray(GREY).save(root / "good.png")
    images = [{"id": 1, "file_name": "good.png", "height": 32, "width": 48}]
    objects = [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": [SQUARE]}]
    write_coco(root, {"images": images, "annotations": objects, "categories": [{"id": 1, "name": "polyp"}]})
    return {"modality": "Endoscopy"}


def write_coco(root, content):
    (root / "coco.json").write_text(json.dumps(content))


def coco(file="bad.png", object_fields=(), **image_fields):
    def add(root):
        Image.fromarray(GREY).save(root / "bad.png")
        content = json.loads((root / "coco.json").read_text())
        content["images"].append({"id": 2, "file_name": file, "height": 32, "width": 48} | image_fields)
        thing = {"id": 2, "image_id": 2, "category_id": 1, "segmentation": [SQUARE]} | dict(object_fields)
        content["annotations"].append(thing)
        write_coco(root, content)

    return add


RUNS = {"size": [32, 48], "counts": [0, 99]}
COCO = [
    ("missing picture", coco("none.png"), SKIPPED, r"images\[1\]\.file_name: found 'none\.png'"),
    ("two points", coco(object_fields={"segmentation": [[1, 1, 5, 5]]}), SKIPPED, r"a polygon of 2 points"),
    ("odd coordinates", coco(object_fields={"segmentation": [SQUARE[:-1]]}), SKIPPED, r"segmentation: found"),
    ("far away", coco(object_fields={"segmentation": [[9e9, 0, 9e9, 9, 0, 9]]}), SKIPPED, r"coordinate 9e\+09"),
    ("runs too short", coco(object_fields={"segmentation": RUNS}), SKIPPED, r"runs of 99 pixels"),
    ("unknown category", coco(object_fields={"category_id": 7}), SKIPPED, r"category_id"),
    ("unknown image", coco(object_fields={"image_id": 7}), SKIPPED, r"annotations\.image_id: found 7"),
    ("other size", coco(height=33), SKIPPED, r"bad\.png\): height and width: found shape \(1, 33, 48\)"),
    ("one id twice", coco(id=1, object_fields={"image_id": 1}), SKIPPED, r"images\[1\]\.id: found 1"),
    ("picture cut off", lambda r: (coco()(r), cut(r / "bad.png")), SKIPPED, r"bad\.png: file"),
]
