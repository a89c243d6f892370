"""Readers of data sets, lists, boxes and weights, each with the smallest valid files that reach all of it."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from custom.data.clip_features import FEATURES_ARRAY, FEATURES_INDEX, FEATURES_KEYS, FORMAT, ClipFeatures, index_digest
from custom.data.mask_table import MaskTable
from custom.data.prepared import INDEX_NAME, load_dataset, open_array
from custom.errors import InputError
from custom.export.folder import DESCRIPTION, VERSION, read_description
from custom.images.boxes import check_boxes
from custom.images.reading import read_image
from custom.inference import batch
from custom.inference.cases import list_cases
from custom.json_files import parse_json
from custom.label_app.roi import parse_prompt
from data_prep.readers.base import Reader
from data_prep.readers.coco import CocoReader
from data_prep.readers.manifest import ManifestReader
from data_prep.readers.nifti import NiftiReader
from data_prep.readers.npz import NpzReader
from data_prep.writer import PrepareOptions, prepare_case
from tests.reliability.fuzz import Target
from tests.reliability.image_targets import AFFINE, COLOUR, GREY, VOLUME, VOLUME_LABEL
from tests.reliability.mutation import mutate_json, mutate_lines, mutate_zip, sometimes

LABEL = np.zeros((12, 16), np.uint8)
LABEL[2:8, 3:9] = 1
BOX = [2, 3, 9, 8]


# --- data sets ---


def _prepare(make: Callable[[Path], Reader], path: Path) -> None:
    """Prepare every case as ``data_prep`` does; refused if any case is refused."""
    src = path.parents[1] if path.parent.name == "US" else path.parent  # a manifest lies one folder deeper
    reader, problem = make(src), None
    (src / "arrays").mkdir(exist_ok=True)
    for source in reader.sources():
        outcome = prepare_case(source, reader, src, PrepareOptions(min_size=4))
        problem = problem or outcome.problem
    if problem:
        raise InputError("case", "", problem, "")


def _npzs(folder: Path, *, label: str = "boxes", volume: bool = False) -> list[bytes]:
    boxes = [[2, 3, 0, 9, 7, 2]] if volume else [BOX]
    images = [VOLUME.astype(np.float32), VOLUME_LABEL] if volume else [GREY, COLOUR]
    marks = boxes if label == "boxes" else VOLUME_LABEL if volume else LABEL
    packed = []
    for image in images:
        file = io.BytesIO()
        np.savez(file, imgs=image, **{label: marks}, spacing=[0.7, 0.8, 2.5])
        packed.append(file.getvalue())
    return packed


def _boxed(path: Path) -> None:
    image = read_image(path)
    image.checked_boxes(image.boxes)


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _cocos(folder: Path) -> list[bytes]:
    Image.fromarray(GREY).save(folder / "a.png")
    square = [2, 2, 9, 2, 9, 9, 2, 9]
    packed = coco_mask.encode(np.asfortranarray(LABEL))["counts"].decode()
    segmentations = [[square], {"size": [12, 16], "counts": [20, 9, 163]}, {"size": [12, 16], "counts": packed}]
    objects = [
        {"id": n, "image_id": 1, "category_id": 1, "iscrowd": 0, "segmentation": segmentation}
        for n, segmentation in enumerate(segmentations)
    ]
    image = {"id": 1, "file_name": "a.png", "height": 12, "width": 16}
    head = {"images": [image], "categories": [{"id": 1, "name": "polyp"}]}
    return [_json(head | {"annotations": part}) for part in (objects[:1], objects[1:2], objects[2:], objects)]


def _manifests(folder: Path) -> list[bytes]:
    (folder / "US").mkdir()
    Image.fromarray(GREY).save(folder / "US" / "a.png")
    Image.fromarray(LABEL).save(folder / "US" / "b.png")
    nib.save(nib.Nifti1Image(VOLUME.T, AFFINE), folder / "US" / "a.nii")
    nib.save(nib.Nifti1Image(VOLUME_LABEL.T, AFFINE), folder / "US" / "b.nii")
    reported = {"modality": "US", "dataset": "Set", "split": "train", "labels": {"1": "tumor"}, "patient": "p"}
    lines = [{"image": f"a.{e}", "label": f"b.{e}", "case": e} | reported for e in ("png", "nii")]
    return [b"\n".join(map(_json, lines)), _json(lines[0] | {"labels": {"*": "cell"}, "label_type": "instance"})]


def _nifti_sets(folder: Path) -> list[bytes]:
    for name, array in (("imagesTr/a_0000", VOLUME), ("imagesTr/a", VOLUME), ("labelsTr/a", VOLUME_LABEL)):
        (folder / name).parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image(array.T, AFFINE), folder / f"{name}.nii")
    nnunet = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii"}
    pair = {"image": "./imagesTr/a.nii", "label": "./labelsTr/a.nii"}
    msd = {"modality": {"0": "MRI"}, "labels": {"0": "background", "1": "liver"}, "training": [pair]}
    return [_json(nnunet), _json(msd), _json(msd | {"validation": [pair]})]


def _lists(folder: Path) -> list[bytes]:
    Image.fromarray(GREY).save(folder / "a.png")
    nib.save(nib.Nifti1Image(VOLUME.T, AFFINE), folder / "b.nii")
    entries = [{"image": "a.png", "boxes": [BOX], "modality": "US"}, {"image": "b.nii", "boxes": [1, 1, 0, 6, 5, 2]}]
    return [_json(entries), _json(entries[:1])]


def _read_list(path: Path) -> None:
    for case in list_cases(path)[0]:
        batch._load(case, batch.SegmentOptions())


def _boxes(folder: Path) -> list[bytes]:
    return [_json(value) for value in ([BOX], BOX, [[1, 1, 0, 6, 5, 2]], [BOX] * 3, "[2, 3, 9, 8]", [[2.5, 3, 9, 8]])]


def _check_boxes(path: Path) -> None:
    value = parse_json(path.read_bytes(), path, "JSON")  # stands for what the command line has parsed
    for shape in ((12, 16), (3, 8, 10)):
        for given in (value, json.dumps(value)):
            _refused(check_boxes, given, shape, path)
    for request in ({"box": value}, {"boxes": value}, {"roi": value, "slice": value}, {"foreground": value}):
        for size, dimension in (((16, 12), 2), ((10, 8, 3), 2), ((10, 8, 3), 3)):
            _refused(parse_prompt, request, size, dimension=dimension)
    check_boxes(value, (12, 16), path)


def _refused(function: Callable[..., object], *arguments: object, **named: object) -> None:
    try:
        function(*arguments, **named)
    except InputError:
        return


# --- weights and files of trainings ---


def _checkpoints(folder: Path) -> list[bytes]:
    import torch

    stem = "image_encoder.stages.0.merge.conv1.conv.weight"
    content = {stem: torch.zeros(2, 3), "prompt_encoder._extra_state": torch.ones(4)}
    saved = []
    for value in (content, {"model": content, "epoch": 3}, {"module." + stem: torch.zeros(2, dtype=torch.float16)}):
        file = io.BytesIO()
        torch.save(value, file)
        saved.append(file.getvalue())
    (folder / "a.pt").write_bytes(saved[0])
    _read_checkpoint(folder / "a.pt")  # exclude what PyTorch loads at its first use
    return saved


def _read_checkpoint(path: Path) -> None:
    from custom.checkpoints.files import read_checkpoint
    from custom.checkpoints.loading import convert_published, read_state_dict, recognise_layout

    _refused(read_checkpoint, path)
    tensors = read_state_dict(path)
    recognise_layout(tensors)
    convert_published(tensors)


def _prepared_sets(folder: Path) -> list[bytes]:
    for name, array in (("a.image", GREY[None]), ("a.label", LABEL[None])):
        np.save(folder / f"{name}.npy", array)
    case = {
        **{"case": "a", "modality": "US", "dataset": "Set", "dimension": 2, "channels": 1, "spacing": [1, 0.5, 0.5]},
        **{"image": "a.image.npy", "label": "a.label.npy", "shape": [1, 12, 16], "labels": {"1": "tumor"}},
        **{"slices": [[0, [1]]], "digest": "0", "patient": "p", "geometry": {"affine": AFFINE.tolist()}},
    }
    head = {"format": "mcp-medsam-prepared", "version": 1, "name": "Set", "modalities": ["US"]}
    return [_json(head | {"training": [case], "validation": [case | {"case": "b"}]})]


def _load_set(path: Path) -> None:
    prepared = load_dataset(path.parent)
    for part in (prepared.training, prepared.validation):
        MaskTable(part)


def _features(folder: Path) -> list[bytes]:
    (folder / INDEX_NAME).write_text("{}")
    np.save(folder / FEATURES_ARRAY, np.zeros((3, 4), np.float32))
    np.save(folder / FEATURES_KEYS, np.array([[0, 1], [0, 2], [1, 1]], np.int32))
    head = {"format": FORMAT, "version": 1, "clip": "x", "width": 4, "dataset": index_digest(folder)}
    return [_json(head | {"cases": {"a": [0, 2], "b": [2, 3]}})]


def _read_features(path: Path) -> None:
    features = ClipFeatures(path.parent)
    for case, z in (("a", 0), ("b", 1)):
        features(case, z, [1])


def _npys(folder: Path) -> list[bytes]:
    files = []
    for array in (GREY[None], COLOUR[None], VOLUME_LABEL.astype(np.uint16), np.asfortranarray(VOLUME)):
        file = io.BytesIO()
        np.save(file, array)
        files.append(file.getvalue())
    return files


def _descriptions(folder: Path) -> list[bytes]:
    graph = {"inputs": {"image": [1, 3, 256, 256]}, "outputs": {"y": [-1, 4]}}
    components = dict.fromkeys(("clip_text", "modality_embedding", "clip_image", "content_cnn"), True)
    reported = {"checkpoint": "a.pt", "digest": "0", "precision": "f32", "components": components, "modalities": ["CT"]}
    reported |= {
        "crop_size": 64,
        "clip_width": 512,
        "takes_clicks": True,
        "click_tokens": False,
        "graphs": {"encoder": graph, "content": graph, "decoder": graph, "click_decoder": graph},
        "left_out": ["clip_image"],
        "made_with": {"torch": "2"},
    }
    return [_json({"format": "mcp-medsam-openvino", "version": VERSION} | reported)]


def _describe(path: Path) -> None:
    bool(read_description(path.parent).uses_modality)  # what a backend uses first


SET_TARGETS: dict[str, Target] = {
    "npz": Target("2D_US_a.npz", _npzs, _boxed, sometimes(mutate_zip)),
    "npz_volume": Target("3D_CT_a.npz", partial(_npzs, volume=True), _boxed, sometimes(mutate_zip)),
    "npz_prep": Target(
        "3D_CT_a.npz", partial(_npzs, label="gts", volume=True), partial(_prepare, NpzReader), sometimes(mutate_zip)
    ),
    "coco": Target("coco.json", _cocos, partial(_prepare, partial(CocoReader, modality="Endoscopy")), mutate_json),
    "manifest": Target("US/manifest.jsonl", _manifests, partial(_prepare, ManifestReader), mutate_lines),
    "nifti_set": Target("dataset.json", _nifti_sets, partial(_prepare, NiftiReader), mutate_json),
    "case_list": Target("list.json", _lists, _read_list, mutate_json),
    "boxes": Target("boxes.json", _boxes, _check_boxes, mutate_json),
    "checkpoint": Target("a.pt", _checkpoints, _read_checkpoint, sometimes(mutate_zip)),
    "prepared_set": Target(INDEX_NAME, _prepared_sets, _load_set, mutate_json),
    "array": Target("a.npy", _npys, open_array),
    "clip_features": Target(FEATURES_INDEX, _features, _read_features, mutate_json),
    "exported_model": Target(DESCRIPTION, _descriptions, _describe, mutate_json),
}
