"""Sessions, against a fresh computation of the same prompts by a network that has seen nothing before."""

import numpy as np
import pytest
from PIL import Image as Picture

from custom import Predictor, Session
from custom.errors import InputError
from custom.inference.backend import Decoded
from custom.inference.models import Model
from custom.inference.session import SCRIBBLE_STEP

SIZE = (12, 16)
BOXES = [[2, 1, 9, 8], [5, 3, 14, 10]]
CLICKS = [[4, 4], [8, 6], [13, 9]]


class Quick:
    """A ``Backend`` of a few array operations, whose answer depends on every prompt."""

    uses_modality, clip_image, crop_size = False, False, 8
    takes_clicks, click_tokens = True, False

    def encode(self, images):
        return list(images)

    def clip_features(self, image, boxes):
        return None

    def encode_content(self, crops):
        return None

    def decode(self, embedding, prompts, answer=None):
        if answer is None:
            masks = np.full((len(prompts.boxes), 256, 256), -1, np.float32)
            for mask, box, crop in zip(masks, prompts.boxes, prompts.crops, strict=True):
                x_min, y_min, x_max, y_max = (
                    (box if box[0] >= 0 else np.tile(prompts.points[0, 0], 2) + [-60, -60, 60, 60])
                    .clip(0, 255)
                    .astype(int)
                )
                mask[y_min:y_max, x_min:x_max] = embedding[0, y_min:y_max, x_min:x_max] - crop.mean()
            return Decoded(masks, prompts.crop_boxes.mean(axis=1), None)
        masks = 0.5 * (answer.mask_logits + prompts.masks)
        for k, ((x, y), sign) in enumerate(zip(prompts.points[0], prompts.point_labels[0], strict=True), 1):
            part = np.s_[0, max(int(y) - 30, 0) : int(y) + 30, max(int(x) - 30, 0) : int(x) + 30]
            masks[part] += {1: 0.4, 0: -0.5, -1: 0.0}[int(sign)] * k + 0.01 * prompts.views[0, 0, 9, 9]
        return Decoded(masks, answer.iou + prompts.view_boxes.mean(axis=1), None)


def quick_predictor(**options):
    return Predictor(network=Model(facts={"backend": "quick"}, make=Quick), **options)


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, SIZE).astype(np.uint8)
    Picture.fromarray(pixels).save(tmp_path / "eye.png")
    return tmp_path / "eye.png"


def fresh(path, known, predictor=None, modality=None):
    """Mask and IoU of the prompts of one object, without any cache."""
    predictor = predictor or quick_predictor(embeddings=0)
    predictor.set_image(path, modality)
    points = {"points": [known.points], "point_labels": [known.point_labels]} if known.points else {}
    masks = {} if known.mask is None else {"masks": [known.mask.array]}
    result = predictor.predict(None if known.box is None else [known.box], **points, **masks)
    return result.masks[0], result.iou[0]


def agree(session, path, known_masks=None):
    """Check masks, IoUs and labels of a session."""
    found, ious, known_masks = session.masks, session.iou, {} if known_masks is None else known_masks
    shown = {}
    for number, known in session.objects.items():
        if not any(known.prompts):
            assert not found[number].any() and ious[number] == 0
            continue
        if known.prompts not in known_masks:
            known_masks[known.prompts] = fresh(path, known)
        mask, iou = known_masks[known.prompts]
        np.testing.assert_array_equal(found[number], mask)
        assert ious[number] == iou
        shown[number] = mask
    assert list(found) == list(session.objects)
    if shown:
        labels = session.labels
        np.testing.assert_array_equal(labels > 0, np.any(list(shown.values()), axis=0))
        for k, mask in enumerate(shown.values(), 1):
            assert mask[labels == k].all()


def act(session, rng, file):
    """Do one random action; return the session, loaded again after a save, and "new", "undo", "redo" or None."""
    kinds = {
        "add": 15,
        "box": 10,
        "click": 30,
        "scribble": 5,
        "remove": 4,
        "rename": 4,
        "undo": 17,
        "redo": 11,
        "save": 4,
    }
    kind, label = rng.choice(list(kinds), p=np.array(list(kinds.values())) / 100), int(rng.integers(2))
    number = int(rng.choice([*list(session.objects)[-2:], 99]))
    try:
        match kind:
            case "add":
                mask = np.arange(192).reshape(SIZE) % 16 > 7 if rng.random() < 0.2 else None
                session.add_object(box=None if rng.random() < 0.4 else BOXES[label], mask=mask)
            case "box":
                session.set_box(number, None if rng.random() < 0.2 else BOXES[label])
            case "click":
                session.click(number, CLICKS[rng.integers(3)], label)
            case "scribble":
                session.scribble(number, CLICKS[:2], label)
            case "remove":
                session.remove_object(number)
            case "rename":
                session.rename(number, f"name {label}")
            case "save":
                session.save(file)
                return Session.load(file, session.predictor), None
            case _:
                getattr(session, kind)()
                return session, kind
    except InputError as error:
        assert "object: found 99" in str(error) or kind in ("undo", "redo")
        return session, None
    return session, "new"


def written(session):
    return {number: known.written() for number, known in session.objects.items()}


@pytest.mark.parametrize("seed", range(10))
def test_random_sequences(picture, tmp_path, seed):
    """100 for each seed; two stacks of states are a second account of the history."""
    predictor, known_masks, rng = quick_predictor(), {}, np.random.default_rng(seed)
    for _ in range(100):
        session, before, after = Session(predictor, picture), [], []
        for _ in range(rng.integers(2, 14)):
            state = written(session)
            session, done = act(session, rng, tmp_path / "eye.json")
            if done == "new":
                before.append(state)
                after.clear()
            elif done == "undo":
                after.append(state)
                assert written(session) == before.pop()
            elif done == "redo":
                before.append(state)
                assert written(session) == after.pop()
            else:
                assert written(session) == state
            assert (session.can_undo, session.can_redo) == (bool(before), bool(after))
        agree(session, picture, known_masks)


def test_ids_names_and_undo(picture):
    session = Session(quick_predictor(), picture, "US")
    first, second = session.add_object(box=BOXES[0]), session.add_object("disc", BOXES[1])
    session.rename(first, " cup ")
    assert (first, second) == (1, 2) and [known.name for known in session.objects.values()] == ["cup", "disc"]
    session.remove_object(second)
    assert session.add_object() == 3 and session.objects[3].name == "object 3"
    for _ in range(2):
        session.undo()
    assert list(session.objects) == [1, 2]
    session.undo()
    assert session.objects[1].name == "object 1"
    session.redo()
    assert session.objects[1].name == "cup" and session.can_redo
    session.click(first, CLICKS[0])
    assert not session.can_redo


def test_only_what_changed_is_segmented_again(picture, make_backend, make_model):
    backend = make_backend()
    session = Session(Predictor(network=make_model(backend), embeddings=0), picture, "US")
    one, other = session.add_object(box=BOXES[0]), session.add_object(box=BOXES[1])
    assert not backend.encoded  # nothing is computed before it is needed
    masks = session.masks
    session.rename(one, "a")
    session.labels, session.iou, session.masks  # noqa: B018
    assert len(backend.encoded) == 2
    session.click(other, CLICKS[0])
    np.testing.assert_array_equal(session.masks[one], masks[one])
    assert len(backend.encoded) == 3
    session.undo()
    np.testing.assert_array_equal(session.masks[other], masks[other])


@pytest.mark.parametrize("overlap", ["logit", "smaller", "last"])
def test_labels_as_if_segmented_together(picture, make_backend, make_model, overlap):
    rng = np.random.default_rng(2)
    boxes = [[x, y, x + w, y + h] for x, y, w, h in rng.integers([0, 0, 3, 3], [8, 5, 8, 7], (6, 4)).tolist()]
    predictor = Predictor(network=make_model(make_backend(reach=20)))
    session = Session(predictor, picture, "US", overlap=overlap)
    for box in boxes:
        session.add_object(box=box)
    session.click(2, CLICKS[0])
    session.click(4, CLICKS[2], 0)
    predictor.set_image(picture, "US")
    points, labels = [[] for _ in boxes], [[] for _ in boxes]
    points[1], points[3], labels[1], labels[3] = [CLICKS[0]], [CLICKS[2]], [1], [0]
    together = predictor.predict(boxes, points=points, point_labels=labels, overlap=overlap)
    assert len(np.unique(together.labels)) > 3 and sum(map(np.int32, together.masks)).max() > 2
    np.testing.assert_array_equal(session.labels, together.labels)
    result = session.result()
    np.testing.assert_array_equal(result.iou, together.iou)
    np.testing.assert_array_equal(result.segmentation.probabilities, together.segmentation.probabilities)
    assert result.counts(separate=True) == together.counts(separate=True)


def test_result_is_saved(picture, tmp_path):
    session = Session(quick_predictor(), picture, "US")
    with pytest.raises(InputError, match="objects: found no object with a prompt"):
        session.result()
    session.add_object("empty")
    session.add_object("cup")
    session.click(2, CLICKS[1])
    session.click(2, CLICKS[0], 0)
    report = session.result().save(tmp_path / "out")
    (entry,) = report["boxes"]
    assert (entry["name"], entry["points"], entry["point_labels"]) == ("cup", [[8, 6], [4, 4]], [1, 0])
    mask = np.asarray(Picture.open(tmp_path / "out" / "eye_mask.png"))
    np.testing.assert_array_equal(mask > 0, session.masks[2])
    assert not session.masks[1].any() and session.iou[1] == 0


def test_a_volume(tmp_path, make_backend, make_model):
    import nibabel as nib

    array = np.random.default_rng(0).integers(0, 255, (16, 12, 5)).astype(np.uint8)
    nib.save(nib.Nifti1Image(array, np.diag([-1.0, 1, 2, 1])), tmp_path / "v.nii.gz")
    predictor = Predictor(network=make_model(make_backend()))
    session = Session(predictor, tmp_path / "v.nii.gz", "MR", follow=False)
    one, other = session.add_object(box=[2, 1, 0, 9, 8, 3]), session.add_object(box=[5, 3, 1, 14, 10, 4])
    session.click(one, [4, 4, 2], 1)
    session.scribble(other, [[6, 4, 2], [12, 9, 2]], 0)
    session.save(tmp_path / "v.json")
    predictor.set_image(tmp_path / "v.nii.gz", "MR")
    known = [session.objects[one], session.objects[other]]
    together = predictor.predict(
        [item.box for item in known],
        points=[item.points for item in known],
        point_labels=[item.point_labels for item in known],
        follow=False,
    )
    for loaded in (session, Session.load(tmp_path / "v.json", predictor)):
        np.testing.assert_array_equal(loaded.labels, together.labels)
        for k, mask in enumerate(loaded.masks.values()):
            np.testing.assert_array_equal(mask, together.masks[k])
    with pytest.raises(InputError, match="clicks without a box in a volume"):
        session.set_box(one, None)
    with pytest.raises(InputError, match="masks: found masks for a volume"):
        session.add_object(mask=np.ones((16, 12, 5)))
    session.add_object()
    with pytest.raises(InputError, match="clicks without a box in a volume"):
        session.click(3, [4, 4, 2])
    assert session.masks[3].shape == (16, 12, 5) and len(session.result().boxes) == 2


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (lambda s: s.click(1, [16, 4]), r"points.0..0.: found .16.0, 4.0.; allowed: inside the image: x 0 to 15, y"),
        (lambda s: s.click(1, [np.nan, 4]), r"points.0..0.: found .nan, 4.0."),
        (lambda s: s.click(1, [1, 2, 3]), "points.0..0.: found"),
        (lambda s: s.click(1, [[1, 2]]), "points: found"),
        (lambda s: s.click(1, [1, 2], 2), r"point_labels.0..0.: found 2; allowed: 1 on the object, 0 beside it"),
        (lambda s: s.click(1, [1, 2], None), "point_labels.0..0.: found None"),
        (lambda s: s.click(2, [1, 2]), "object: found 2; allowed: an id of an object: 1"),
        (lambda s: s.click("1", [1, 2]), "object: found '1'"),
        (lambda s: s.set_box([1], BOXES[0]), r"object: found \[1\]"),
        (lambda s: s.remove_object(3), "object: found 3"),
        (lambda s: s.rename(1, " "), "name: found ' '"),
        (lambda s: s.rename(1, None), "name: found None"),
        (lambda s: s.set_box(1, [5, 5, 3, 9]), r"boxes.0.: found"),
        (lambda s: s.set_box(1, BOXES), "box: found 2 boxes; allowed: one box"),
        (lambda s: s.add_object(box=[1, 2, 99, 9]), r"boxes.0.: found"),
        (lambda s: s.add_object(mask=np.ones((3, 4))), r"mask: found shape \(3, 4\)"),
        (lambda s: s.add_object(mask="none.png"), "none.png"),
        (lambda s: s.add_object(mask=["a"]), r"mask: found \['a'\]; allowed: a mask file, or an array"),
        (lambda s: s.scribble(1, []), "scribble: found no point"),
        (lambda s: s.scribble(1, [[1, 2], [3, 99]]), r"points.0..1.: found"),
        (lambda s: (s.undo(), s.undo()), "Session: undo: found no action"),
        (lambda s: s.redo(), "Session: redo: found nothing undone"),
    ],
)
def test_bad_actions(picture, do, message):
    session = Session(quick_predictor(), picture)
    session.add_object(box=BOXES[0])
    with pytest.raises(InputError, match=message) as error:
        do(session)
    assert "\n" not in str(error.value) and len(session._actions) == 1


def test_weights_without_clicks(picture, make_backend, make_model, tmp_path):
    session = Session(Predictor(network=make_model(make_backend(takes_clicks=False))), picture)
    session.add_object(box=BOXES[0])
    with pytest.raises(InputError, match="points: found clicks or masks; allowed: boxes, or weights that"):
        session.click(1, CLICKS[0])
    assert session.masks[1].shape == SIZE and not session.objects[1].points


def test_a_scribble_is_one_action(picture):
    session = Session(quick_predictor(), picture)
    session.add_object()
    session.scribble(1, [[1, 2], [14, 2], [14, 9]], 0)
    known = session.objects[1]
    assert known.points[0] == (1, 2) and known.points[-1] == (14, 9) and set(known.point_labels) == {0}
    assert len(known.points) == 21  # 20 pixels long, and a pixel is SCRIBBLE_STEP pixels of the frame
    assert 256 / max(SIZE) == SCRIBBLE_STEP
    session.undo()
    assert not session.objects[1].points


@pytest.mark.slow
@pytest.mark.parametrize("click_tokens", [False, True])
def test_the_real_network(picture, tmp_path, click_tokens):
    """With random weights of the correction."""
    torch = pytest.importorskip("torch")
    from custom.inference.torch_backend import TorchBackend
    from custom.networks import build_mcp_medsam

    torch.manual_seed(0)
    network = build_mcp_medsam(clip_text=False, clip_image=False, mask_correction=True)
    network.prompt_encoder.click_tokens = click_tokens
    for layer in (network.mask_correction.head, network.mask_correction.iou_head):
        torch.nn.init.normal_(layer.weight)
    model = Model(facts={"backend": "torch"}, make=lambda: TorchBackend(network))
    predictor, rng = Predictor(network=model), np.random.default_rng(3)
    for _ in range(3):
        session = Session(predictor, picture, "US")
        for _ in range(8):
            session, _ = act(session, rng, tmp_path / "eye.json")
        alone = Predictor(network=model, embeddings=0)
        for number, mask in session.masks.items():
            known = session.objects[number]
            if any(known.prompts):
                expected, iou = fresh(picture, known, alone, "US")
                np.testing.assert_array_equal(mask, expected)
                assert session.iou[number] == iou
