"""Milliseconds of a click on a box that was decoded before.

python -m tests.benchmarks.clicks
"""

from __future__ import annotations

import cProfile
import pstats
import time

import fire
import numpy as np
from skimage import data

from custom.inference.predictor import Predictor

BOX = [122, 545, 322, 750]
KINDS = (("torch", "f32"), ("openvino", "f32"), ("openvino", "bf16"))


def clicks(rounds: int = 20, length: int = 5, profile: bool = False) -> None:
    """Click on the fundus photograph of scikit-image, and print median and 95th percentile for each backend.

    Args:
        rounds: sequences of clicks at random places in the box.
        length: clicks of a sequence, one ``predict`` each.
        profile: True also prints where the time of the last backend goes.
    """
    rng = np.random.default_rng(0)
    x_min, y_min, x_max, y_max = BOX
    places = rng.integers([x_min, y_min], [x_max + 1, y_max + 1], size=(rounds, length, 2))
    labels = rng.integers(0, 2, size=(rounds, length))
    for backend, precision in KINDS:
        predictor = Predictor(backend=backend, precision=precision)
        predictor.set_image(data.retina(), modality="Fundus")
        predictor.predict(boxes=BOX)
        predictor.predict(boxes=BOX, points=places[0, :1].tolist(), point_labels=[1])
        profiler, times = cProfile.Profile(), []
        for points, signs in zip(places.tolist(), labels.tolist(), strict=True):
            for k in range(1, length + 1):
                start = time.perf_counter()
                if profile:
                    profiler.enable()
                predictor.predict(boxes=BOX, points=points[:k], point_labels=signs[:k])
                profiler.disable()
                times.append((time.perf_counter() - start) * 1000)
        print(f"{backend} {precision}: median {np.median(times):.0f} ms, 95 % {np.quantile(times, 0.95):.0f} ms")
    if profile:
        pstats.Stats(profiler).sort_stats("cumulative").print_stats(25)


if __name__ == "__main__":
    fire.Fire(clicks)
