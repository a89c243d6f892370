import pytest

from custom.modalities import UNKNOWN_MODALITY
from custom.transforms import RandUnknownModalityd


# (probability, times of 1000 that it is hidden, at least and at most: 5 standard deviations)
@pytest.mark.parametrize("prob, least, most", [(0.0, 0, 0), (0.25, 182, 318), (1.0, 1000, 1000)])
def test_hidden_as_often_as_asked(prob, least, most):
    transform = RandUnknownModalityd("modality_index", prob=prob).set_random_state(seed=0)
    items = [transform({"modality_index": 3, "case": "a"}) for _ in range(1000)]
    assert least <= sum(item["modality_prompt"] == UNKNOWN_MODALITY for item in items) <= most
    assert {item["modality_prompt"] for item in items} <= {3, UNKNOWN_MODALITY}
    assert all(item["modality_index"] == 3 and item["case"] == "a" for item in items)


def test_the_seed_fixes_the_draws():
    def draw(seed):
        return RandUnknownModalityd("m", prob=0.5).set_random_state(seed=seed)({"m": 3})["modality_prompt"]

    draws = [draw(seed) for seed in range(20)]
    assert draws == [draw(seed) for seed in range(20)] and set(draws) == {3, UNKNOWN_MODALITY}
