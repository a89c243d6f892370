import numpy as np
import pytest

from custom.inference.cached_backend import ANSWERS, CachedBackend


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
    first = cache.decode(one, boxes, 1, crops)
    assert cache.decode(one, boxes.copy(), 1, crops.copy()) is first
    for asked in (
        (other, boxes, 1, crops),
        (one, boxes + 1, 1, crops),
        (one, boxes, 2, crops),
        (one, boxes, 1, crops + 1),
    ):
        assert cache.decode(*asked) is not first
    assert len(cache.backend.decoded) == 5
    for n in range(ANSWERS):
        cache.decode(one, boxes + n / 9, 7, crops)
    assert cache.decode(one, boxes, 1, crops) is not first
