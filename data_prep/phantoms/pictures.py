"""Phantom pictures of the eight modalities that are 2D; colour for endoscopy, dermoscopy, fundus and microscopy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter

from data_prep.phantoms.shapes import (
    Phantom,
    colour,
    grid,
    picture,
    radius,
    random_waves,
    speckle,
    texture,
    turned_radius,
    wavy_radius,
)

Shape = tuple[int, int]


def endoscopy(rng: np.random.Generator, shape: Shape) -> Phantom:
    """A reddish lumen with one or two polyps, folds, highlights and a dark rim."""
    axes = grid(shape)
    h, w = shape
    lumen = radius(axes, (rng.uniform(-0.1, 0.1) * h, rng.uniform(-0.1, 0.1) * w), (0.6 * h, 0.6 * w))
    light = 0.25 + 0.55 * np.clip(lumen, 0, 1.2) + 0.06 * np.sin(14 * lumen) + 0.05 * texture(rng, shape, 5)
    label = np.zeros(shape, np.uint8)
    for side in (-1, 1)[: rng.integers(1, 3)]:
        center = (rng.uniform(-0.15, 0.15) * h, side * rng.uniform(0.2, 0.24) * w)
        radii = (rng.uniform(0.14, 0.2) * h, rng.uniform(0.12, 0.16) * w)
        polyp = wavy_radius(axes, center, radii, random_waves(rng, 0.06))
        light = np.where(polyp <= 1, 0.95 - 0.4 * polyp**2 + 0.04 * texture(rng, shape, 2), light)
        label[polyp <= 1] = 1
    image = colour(gaussian_filter(light, 0.8), (60, 12, 10), (248, 160, 130))
    for _ in range(8):
        spot = radius(axes, rng.uniform(-0.4, 0.4, 2) * shape, rng.uniform(1.5, 4, 2))
        image += 190 * np.exp(-(spot**2))[..., None]
    image[radius(axes, (0, 0), (0.66 * h, 0.56 * w)) > 1] = 6
    label[radius(axes, (0, 0), (0.66 * h, 0.56 * w)) > 1] = 0
    return picture(image + rng.normal(0, 3, image.shape), label, {1: "polyp"})


def x_ray(rng: np.random.Generator, shape: Shape) -> Phantom:
    """A chest: dark lungs, heart, spine and ribs; the patient's right is on the left of the picture."""
    axes = grid(shape)
    y, x = axes
    h, w = shape
    body = radius(axes, (0.12 * h, 0), (0.75 * h, 0.47 * w))
    image = np.where(body <= 1, 165 - 25 * body, 22.0)
    label = np.zeros(shape, np.uint8)
    tall = rng.uniform(0.33, 0.38) * h
    for number, side in ((1, -1), (2, 1)):
        center = (-0.02 * h, side * rng.uniform(0.185, 0.2) * w)
        lung = turned_radius(axes, center, (tall, rng.uniform(0.13, 0.15) * w), side * rng.uniform(0.05, 0.15))
        image = np.where(lung <= 1, 62 + 18 * lung + 5 * texture(rng, shape, 3), image)
        label[lung <= 1] = number
    heart = turned_radius(axes, (0.14 * h, 0.05 * w), (0.17 * h, rng.uniform(0.13, 0.16) * w), -0.5)
    image = np.where(heart <= 1, 185 - 15 * heart, image)
    label[heart <= 1] = 3
    image += np.where((np.abs(x) < 0.035 * w) & (body <= 1), 30 + 8 * np.sin(y / 3), 0)
    ribs = np.cos((y + 0.0025 * x**2 * 256 / w) * 2 * np.pi / (0.1 * h)) > 0.72
    image += np.where(ribs & (body <= 0.8) & (np.abs(y) < 0.38 * h), 16, 0)
    image = gaussian_filter(image, 1.0) + rng.normal(0, 4, shape)
    return picture(image, label, {1: "right lung", 2: "left lung", 3: "heart"})


def dermoscopy(rng: np.random.Generator, shape: Shape) -> Phantom:
    """A pigmented lesion with an irregular outline on skin, with a few hairs."""
    axes = grid(shape)
    y, x = axes
    h, w = shape
    center = rng.uniform(-0.08, 0.08, 2) * shape
    radii = (rng.uniform(0.2, 0.3) * h, rng.uniform(0.2, 0.3) * w)
    lesion = wavy_radius(axes, center, radii, random_waves(rng, 0.09))
    skin = 0.9 + 0.03 * texture(rng, shape, 9) + 0.02 * texture(rng, shape, 1.2)
    pigment = 0.18 + 0.3 * lesion**2 + 0.08 * texture(rng, shape, 4)
    light = gaussian_filter(np.where(lesion <= 1, pigment, skin), 1.2)
    for _ in range(6):
        slope, offset, bend = rng.uniform(-1.2, 1.2), rng.uniform(-0.5, 0.5) * h, rng.uniform(-2e-3, 2e-3)
        light = np.where(np.abs(y - slope * x - offset - bend * x**2) < 0.7 * np.hypot(1, slope), 0.1, light)
    shade = 1.04 - 0.12 * radius(axes, (0, 0), (h / 2, w / 2)) ** 2
    image = colour(light, (48, 24, 20), (234, 186, 164)) * shade[..., None]
    return picture(image + rng.normal(0, 3, image.shape), (lesion <= 1).astype(np.uint8), {1: "skin lesion"})


def mammography(rng: np.random.Generator, shape: Shape) -> Phantom:
    """A breast at the left edge with fibroglandular tissue and a bright mass; black outside."""
    axes = grid(shape)
    h, w = shape
    breast = radius(axes, (0, -w / 2), (0.46 * h, rng.uniform(0.62, 0.75) * w))
    gland_center = (rng.uniform(-0.05, 0.05) * h, -0.22 * w)
    gland = wavy_radius(axes, gland_center, (0.25 * h, 0.22 * w), random_waves(rng, 0.05))
    image = np.where(breast <= 1, 82 + 12 * texture(rng, shape, 6) + 5 * texture(rng, shape, 1.5), 3.0)
    image = np.where(gland <= 1, 138 + 16 * texture(rng, shape, (2, 5)) - 12 * gland, image)
    center = (gland_center[0] + rng.uniform(-0.1, 0.1) * h, gland_center[1] + rng.uniform(-0.06, 0.1) * w)
    mass = wavy_radius(axes, center, rng.uniform(0.05, 0.08, 2) * h, random_waves(rng, 0.1))
    image = np.where(mass <= 1, 228 - 14 * mass, image)
    label = np.where(mass <= 1, 2, (gland <= 1).astype(np.uint8))
    image = np.where(breast <= 1, gaussian_filter(image, 0.9), 3) * np.where(breast > 0.94, 0.75, 1)
    return picture(image + rng.normal(0, 3, shape), label, {1: "fibroglandular tissue", 2: "mass"})


def ultrasound(rng: np.random.Generator, shape: Shape) -> Phantom:
    """A dark tumour with a bright zone behind it, in layered tissue, all under speckle."""
    axes = grid(shape)
    y, x = axes
    h, w = shape
    depth = (y + h / 2) / h
    wave = 0.012 * np.sin(x / 23 + rng.uniform(0, 6))
    base = np.select([depth + wave < 0.06, depth + wave < 0.22, depth + wave < 0.78], [150.0, 82.0, 108.0], 68.0)
    base = base * (1.15 - 0.45 * depth) + 0 * x
    center = (rng.uniform(-0.06, 0.06) * h, rng.uniform(-0.15, 0.15) * w)
    radii = (rng.uniform(0.13, 0.18) * h, rng.uniform(0.15, 0.2) * w)
    tumour = wavy_radius(axes, center, radii, random_waves(rng, 0.06))
    behind = (y > center[0]) & (np.abs(x - center[1]) < 0.75 * radii[1])
    base = np.where(behind, base * 1.35, base)
    base = np.where(tumour <= 1, 26 + 10 * tumour, base)
    image = gaussian_filter(base, 1.2) * (0.45 + 0.55 * speckle(rng, shape, (0.8, 1.6)))
    return picture(image, (tumour <= 1).astype(np.uint8), {1: "breast tumor"})


def oct_scan(rng: np.random.Generator, shape: Shape) -> Phantom:
    """Retinal layers around a pit, with a dark pocket of fluid, under speckle."""
    axes = grid(shape)
    y, x = axes
    h, w = shape
    top = -0.16 * h + 0.05 * h * np.sin(x / w * 2.5 + rng.uniform(0, 6))
    pit = np.exp(-(((x - rng.uniform(-0.15, 0.15) * w) / (0.13 * w)) ** 2))
    thickness = np.asarray((0.055, 0.085, 0.06, 0.12, 0.045)) * h * rng.uniform(0.9, 1.15)
    shrink = (0.85, 0.75, 0.6, 0.0, 0.0)
    layers = ((1, 175), (2, 120), (3, 75), (4, 55), (5, 215))
    start = top + pit * sum(t * s for t, s in zip(thickness, shrink, strict=True))
    image = np.where(y < start, 14.0, 60.0 * np.exp(-(y - start) / (0.5 * h)))
    label = np.zeros(shape, np.uint8)
    for (number, value), thick, less in zip(layers, thickness, shrink, strict=True):
        end = start + thick * (1 - less * pit)
        inside = (y >= start) & (y < end)
        image, start = np.where(inside, value, image), end
        label[inside] = number
    fluid_x = rng.choice((-1, 1)) * rng.uniform(0.25, 0.32) * w
    column = int(np.clip(np.rint(fluid_x + (w - 1) / 2), 0, w - 1))
    rows = np.flatnonzero(label[:, column] == 4)
    fluid = radius(axes, (float(y[rows].mean()), fluid_x), (0.045 * h, 0.08 * w)) <= 1
    image, label = np.where(fluid, 22, image), np.where(fluid, 6, label)
    image = gaussian_filter(image.astype(float), 0.8) * (0.4 + 0.6 * speckle(rng, shape, (0.6, 1.2)))
    names = {1: "RNFL", 2: "GCL+IPL", 3: "INL+OPL", 4: "ONL", 5: "RPE", 6: "fluid"}
    return picture(image, label, names)


def fundus(rng: np.random.Generator, shape: Shape) -> Phantom:
    """An orange eye ground with optic disc, cup and four vessel arcs that start at the disc."""
    axes = grid(shape)
    y, x = axes
    h, w = shape
    view = radius(axes, (0, 0), (0.48 * h, 0.48 * h))
    side = rng.choice((-1, 1))
    center = (rng.uniform(-0.04, 0.04) * h, side * rng.uniform(0.19, 0.23) * h)
    size = rng.uniform(0.075, 0.095) * h
    disc = radius(axes, center, (1.08 * size, size))
    cup = radius(axes, center, (0.5 * size, 0.46 * size))
    light = 0.5 + 0.05 * texture(rng, shape, 8) + 0.02 * texture(rng, shape, 1) - 0.18 * view**2
    macula = radius(axes, (center[0], center[1] - side * 0.4 * h), (0.09 * h, 0.09 * h))
    light -= 0.14 * np.exp(-(macula**2))
    light = np.where(disc <= 1, 0.86, light)
    light = np.where(cup <= 1, 1.0, light)
    along = -side * (x - center[1])
    label = np.where(cup <= 1, 2, (disc <= 1).astype(np.uint8))
    for up in (-1, 1):
        for reach, thick in ((0.34, 2.1), (0.24, 1.4)):
            arc = center[0] + up * reach * h * np.sin(np.clip(along / (0.75 * h), 0, 1) * np.pi) * rng.uniform(0.9, 1.1)
            slope = reach * np.pi / 0.75 * np.cos(np.clip(along / (0.75 * h), 0, 1) * np.pi)
            vessel = (np.abs(y - arc) < thick * np.hypot(1, slope)) & (along > 0) & (view <= 0.97) & (disc > 1.05)
            light = np.where(vessel, light - 0.3, light)
            label = np.where(vessel, 3, label)
    image = colour(gaussian_filter(light, 0.7), (70, 14, 4), (255, 196, 120))
    image[view > 1] = 4
    names = {1: "optic disc rim", 2: "optic cup", 3: "retinal vessel"}
    return picture(image + rng.normal(0, 2.5, image.shape), label, names)


def microscopy(rng: np.random.Generator, shape: Shape) -> Phantom:
    """Stained nuclei as an instance map: ellipses that never overlap, some of them touching."""
    axes = grid(shape)
    h, w = shape
    label = np.zeros(shape, np.uint8)
    light = 0.92 + 0.035 * texture(rng, shape, 3)
    wanted, tries = int(rng.integers(22, 32)), 400
    for _ in range(tries):
        center, radii = rng.uniform(-0.5, 0.5, 2) * (h, w), rng.uniform(7, 13, 2)
        nucleus = turned_radius(axes, center, radii, rng.uniform(0, np.pi))
        inside = nucleus <= 1
        if inside.sum() < 40 or label[inside].any():
            continue
        label[inside] = label.max() + 1
        light = np.where(inside, rng.uniform(0.15, 0.35) + 0.12 * nucleus + 0.06 * texture(rng, shape, 1.5), light)
        if label.max() == wanted:
            break
    image = colour(gaussian_filter(light, 0.7), (58, 28, 120), (244, 218, 236))
    return picture(image + rng.normal(0, 3, image.shape), label, {"*": "nucleus"})


PICTURES: dict[str, Callable[[np.random.Generator, Shape], Phantom]] = {
    "Endoscopy": endoscopy,
    "X-Ray": x_ray,
    "Dermoscopy": dermoscopy,
    "Mammography": mammography,
    "US": ultrasound,
    "OCT": oct_scan,
    "Fundus": fundus,
    "Microscopy": microscopy,
}
