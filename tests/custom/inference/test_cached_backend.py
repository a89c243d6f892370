import numpy as np
import pytest

from custom.inference.cached_backend import ANSWERS, CONTENTS, CachedBackend
from custom.prompts import Prompts


def frames(*values):
    return np.stack([np.full((3, 256, 256), value, np.float32) for value in values])


@pytest.mark.parametrize(
    ("asked", "encoded"),
    [
        ([1, 1, 1], 1),
        ([1, 2, 1, 2], 2),
        ([1, 2, 3, 1], 4),  # 1 was dropped
        ([1, 2, 1, 3, 1, 2], 4),  # 2 was dropped: 1 was used later
    ],
)
def test_embeddings_least_recently_used_goes_first(make_backend, asked, encoded):
    cache = CachedBackend(make_backend(), capacity=2)
    for value in asked:
        (embedding,) = cache.encode(frames(value))
        assert (embedding.value == value).all() and len(cache) <= 2
    assert cache.encoded == len(cache.backend.encoded) == encoded


def test_embeddings_of_a_batch_in_order(make_backend):
    cache = CachedBackend(make_backend(), capacity=8)
    cache.encode(frames(2))
    assert [embedding.value[0, 0, 0] for embedding in cache.encode(frames(1, 2, 3))] == [1, 2, 3]
    assert cache.encoded == 3


def test_the_same_boxes_are_decoded_once(make_backend):
    cache = CachedBackend(make_backend(), capacity=1)
    one, other = cache.encode(frames(1, 2))  # their embeddings are dropped, decoded results are found by the image
    crops, boxes = np.zeros((1, 3, 64, 64), np.float32), np.array([[10, 10, 90, 90]], np.float32)
    prompts = Prompts(boxes=boxes, crops=crops, modality=1)
    first = cache.decode(one, prompts)
    assert cache.decode(one, Prompts(boxes=boxes.copy(), crops=crops.copy(), modality=1)) is first
    for asked in (
        (other, prompts),
        (one, prompts._replace(boxes=boxes + 1)),
        (one, prompts._replace(modality=2)),
        (one, prompts._replace(crops=crops + 1)),
        (one, prompts._replace(crop_boxes=boxes)),  # not the same as the same numbers in another field
    ):
        assert cache.decode(*asked) is not first
    assert len(cache.backend.decoded) == 6
    for n in range(ANSWERS):
        cache.decode(one, prompts._replace(boxes=boxes + n / 9, modality=7))
    assert cache.decode(one, prompts) is not first


def clicked(k, *, box=True):
    """Prompts with k clicks on one object."""
    boxes = np.array([[10, 10, 90, 90]] if box else [[-1, -1, -1, -1]], np.float32)
    return Prompts(
        boxes=boxes,
        crops=np.zeros((1, 3, 64, 64), np.float32),
        modality=1,
        points=np.arange(2 * k, dtype=np.float32).reshape(1, k, 2),
        point_labels=np.ones((1, k), np.int64),
        masks=np.full((1, 256, 256), k, np.float32),
        views=np.zeros((1, 3, 128, 128), np.float32),
        view_boxes=np.array([[0, 0, 99, 99]], np.float32),
    )


def test_each_part_of_a_click_makes_another_answer(make_backend):
    cache = CachedBackend(make_backend(), capacity=1)
    (embedding,) = cache.encode(frames(1))
    prompts = clicked(2)
    first = cache.decode(embedding, prompts)
    assert cache.decode(embedding, clicked(2)) is first
    for field in ("points", "point_labels", "masks", "views", "view_boxes"):
        changed = getattr(prompts, field).copy()
        changed.flat[0] = 0.5 if changed.dtype == np.float32 else 0
        assert cache.decode(embedding, prompts._replace(**{field: changed})) is not first, field


@pytest.mark.parametrize("click_tokens", [False, True])
def test_content_of_a_box_is_computed_once_for_all_clicks(make_backend, click_tokens):
    cache = CachedBackend(make_backend(click_tokens=click_tokens), capacity=1)
    (embedding,) = cache.encode(frames(1))
    alone = clicked(1)._replace(points=None, point_labels=None, masks=None, views=None, view_boxes=None)
    answer = cache.decode(embedding, alone)
    for k in range(1, 5):
        cache.decode(embedding, clicked(k), answer)
    assert cache.backend.contents == click_tokens  # without, the decoder does not run again, and content is part of it
    assert cache.backend.answered == (5 if click_tokens else 1)
    assert all((call.content is not None) == click_tokens for call in cache.backend.decoded)
    for value in range(CONTENTS):
        cache.encode_content(np.full((1, 3, 64, 64), value + 1, np.float32))
    cache.encode_content(alone.crops)
    assert cache.backend.contents == CONTENTS + 1 + click_tokens  # the oldest was dropped


def test_facts_of_the_backend(make_backend):
    for facts in ({"takes_clicks": False, "uses_modality": False}, {"click_tokens": True}):
        backend = make_backend(**facts)
        cache = CachedBackend(backend, capacity=1)
        for name in ("uses_modality", "clip_image", "crop_size", "takes_clicks", "click_tokens"):
            assert getattr(cache, name) == getattr(backend, name)
