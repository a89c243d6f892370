"""Phantom volumes: an abdominal CT (HU), a head MR (arbitrary units) and a PET of the trunk (SUV).

Axes are (z, y, x) with row 0 anterior and column 0 the patient's right; lengths are in mm.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter

from data_prep.phantoms.shapes import Phantom, grid, radius, texture


def ct(rng: np.random.Generator) -> Phantom:
    """Abdomen: liver, spleen and both kidneys, with spine, fat and air."""
    shape, spacing = (12, 128, 128), (8.0, 2.9, 2.9)
    axes = grid(shape, spacing)
    z, y, x = axes
    wide, deep = rng.uniform(150, 168), rng.uniform(105, 122)
    body = radius((y, x), (0, 0), (deep, wide)) + 0 * z
    wall = radius((y, x), (0, 0), (deep - 14, wide - 14)) + 0 * z
    image = np.full(shape, -1000.0)
    image[body <= 1] = -100
    image[wall <= 1] = 20
    bowel = radius(axes, (rng.uniform(-20, 20), -50, 20), (40, 24, 34))
    image[bowel <= 1] = -20
    image[bowel <= 0.55] = -850
    image[radius((y, x), (deep - 52, 0), (17, 19)) + 0 * z <= 1] = 420
    label = np.zeros(shape, np.uint8)
    kidney_z = rng.uniform(-12, 12, 2)
    organs = (
        (1, 112, (rng.uniform(-8, 8), -18, -72), (60, 58, 58)),
        (2, 125, (rng.uniform(0, 16), 28, 100), (34, 34, 24)),
        (3, 165, (kidney_z[0], 48, -56), (42, 22, 20)),
        (4, 165, (kidney_z[1], 50, 56), (42, 22, 20)),
    )
    for number, value, center, radii in organs:
        inside = radius(axes, center, np.asarray(radii) * rng.uniform(0.88, 1.0)) <= 1
        image[inside], label[inside] = value, number
    image = gaussian_filter(image, (0.3, 0.7, 0.7)) + 9 * texture(rng, shape, (0, 0.6, 0.6))
    names = {1: "liver", 2: "spleen", 3: "right kidney", 4: "left kidney"}
    return Phantom(np.clip(np.rint(image), -1024, 3071).astype(np.int16), label, names, spacing)


def mr(rng: np.random.Generator) -> Phantom:
    """Head: two ventricles and a tumour with a dark core in its rim, under a smooth bias field."""
    shape, spacing = (12, 128, 112), (6.0, 1.8, 1.8)
    axes = grid(shape, spacing)
    z, y, x = axes
    size = rng.uniform(0.92, 1.03)
    heads = ((75, 104, 88), (70, 97, 81), (66, 91, 75))
    skin, skull, brain = (radius(axes, (0, 0, 0), np.asarray(radii) * size) for radii in heads)
    image = np.zeros(shape)
    image[skin <= 1] = 620
    image[skull <= 1] = 90
    folds = 0.5 + 0.5 * np.tanh(2 * texture(rng, shape, (0.6, 3, 3)) + 6 * (0.72 - brain))
    image = np.where(brain <= 1, 330 + 150 * folds, image)
    label = np.zeros(shape, np.uint8)
    for side in (-1, 1):
        bend = side * (13 + 0.004 * (y + 5) ** 2)  # horns turn outwards
        ventricle = radius((z, y, x - bend), (4, -5, 0), (26, 38, 8))
        image[ventricle <= 1], label[ventricle <= 1] = 120, 1
    center = (rng.uniform(-12, 12), rng.uniform(-40, 40), rng.choice((-1, 1)) * rng.uniform(34, 42))
    tumour = radius(axes, center, np.asarray((18, 19, 16)) * rng.uniform(0.8, 1.15))
    image[tumour <= 1], label[tumour <= 1] = 760, 2
    image[tumour <= 0.55], label[tumour <= 0.55] = 210, 3
    field = 1 + 0.12 * np.cos((y + x) / 90 + rng.uniform(0, 6))
    image = gaussian_filter(image, (0.2, 0.6, 0.6)) * field
    image = np.hypot(image + 14 * rng.standard_normal(shape), 14 * rng.standard_normal(shape))  # Rician noise
    names = {1: "ventricles", 2: "enhancing tumor", 3: "tumor core"}
    return Phantom(np.rint(image).astype(np.int16), label, names, spacing)


def pet(rng: np.random.Generator) -> Phantom:
    """Trunk: low uptake, a warm liver and heart ring, and two hot lesions of different size."""
    shape, spacing = (12, 128, 128), (5.0, 3.6, 3.6)
    axes = grid(shape, spacing)
    z, y, x = axes
    image = np.full(shape, 0.02)
    body = radius((y, x), (0, 0), (rng.uniform(105, 120), rng.uniform(160, 180))) + 0 * z
    image[body <= 1] = 0.7
    for side in (-1, 1):
        image[radius(axes, (12, -5, side * 72), (70, 72, 46)) <= 1] = 0.35
    image[radius(axes, (-42, -5, -70), (30, 62, 66)) <= 1] = 2.2
    heart = radius(axes, (0, -45, 28), (26, 34, 30))
    image[(heart <= 1) & (heart > 0.6)] = 3.4
    label = np.zeros(shape, np.uint8)
    left = (rng.uniform(-8, 14), rng.uniform(10, 40), rng.uniform(55, 95))
    right = (rng.uniform(-8, 14), rng.uniform(25, 60), -72)
    lesions = ((1, left, rng.uniform(15, 21)), (2, right, rng.uniform(10, 13)))
    for number, center, size in lesions:
        lesion = radius(axes, center, (size, size, size * 1.2)) <= 1
        image[lesion], label[lesion] = rng.uniform(6, 11), number
    image = gaussian_filter(image, (0.4, 0.8, 0.8))
    noise = gaussian_filter(rng.standard_normal(shape), (0.4, 0.9, 0.9)) * 0.6 * np.sqrt(image)
    names = {1: "tumor", 2: "tumor"}
    return Phantom(np.clip(image + noise, 0, None).astype(np.float32), label, names, spacing)


VOLUMES: dict[str, Callable[[np.random.Generator], Phantom]] = {"CT": ct, "MR": mr, "PET": pet}
