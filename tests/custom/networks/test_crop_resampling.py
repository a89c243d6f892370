import pytest
import torch
import torch.nn.functional as F

from custom.networks.crop_resampling import cut_crops, place_crops


# x, y, width and height of the box, side of the grid
@pytest.mark.parametrize(
    ("x", "y", "width", "height", "size"),
    [
        (10, 20, 64, 100, 256),
        (3, 5, 7, 9, 256),
        (0, 0, 256, 256, 256),
        (100, 50, 24, 24, 256),
        (8, 40, 100, 64, 64),
        (244, 4, 12, 8, 64),
        (0, 0, 256, 256, 64),
    ],
)
def test_placing_is_resizing_with_antialiasing(x, y, width, height, size):
    crops, step = torch.rand(1, 5, 24, 24), 256 // size
    expected = torch.zeros(1, 5, size, size)
    resized = F.interpolate(crops, (height // step, width // step), mode="bilinear", antialias=True)
    expected[:, :, y // step : (y + height) // step, x // step : (x + width) // step] = resized
    found = place_crops(crops, torch.tensor([[x, y, x + width - 1.0, y + height - 1.0]]), size)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize(("x", "y", "width", "height"), [(10, 20, 64, 100), (3, 5, 14, 9), (0, 0, 256, 256)])
def test_cutting_is_resizing_with_antialiasing(x, y, width, height):
    maps = torch.rand(1, 5, 256, 256)
    inside = maps[:, :, y : y + height, x : x + width]
    expected = F.interpolate(inside, (24, 24), mode="bilinear", antialias=True)
    found = cut_crops(maps, torch.tensor([[x, y, x + width - 1.0, y + height - 1.0]]), 24)
    middle = (..., slice(3, -3), slice(3, -3))  # at the edges the pixels outside the box contribute
    torch.testing.assert_close(found[middle], expected[middle], atol=1e-6, rtol=0)


def test_planes_stay_planes_between_the_points():
    y, x = torch.meshgrid(torch.arange(256.0), torch.arange(256.0), indexing="ij")
    box = torch.tensor([[60.3, 80.9, 84.1, 100.2]])  # smaller than the crop
    found = cut_crops((3 * x - y).view(1, 1, 256, 256), box, 32)
    at = [low + (high + 1 - low) * (torch.arange(32) + 0.5) / 32 - 0.5 for low, high in box.view(2, 2).T]
    torch.testing.assert_close(found[0, 0], 3 * at[0][None, :] - at[1][:, None], atol=1e-3, rtol=0)

    box = torch.tensor([[60.3, 80.9, 139.1, 150.2]])  # larger than the crop
    found = place_crops((3 * x - y)[None, None, :32, :32], box, 256)
    at = [(torch.arange(256) + 0.5 - low) / (high + 1 - low) * 32 - 0.5 for low, high in box.view(2, 2).T]
    expected, middle = 3 * at[0][None, :] - at[1][:, None], (slice(84, 148), slice(64, 137))
    torch.testing.assert_close(found[0, 0][middle], expected[middle], atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    "resample", [lambda maps, boxes: cut_crops(maps, boxes, 16), lambda m, b: place_crops(m, b, 64)]
)
def test_each_box_has_its_map(resample):
    maps, boxes = torch.rand(3, 2, 8, 8), torch.tensor([[5.0, 9, 30, 60], [-0.3, 2.5, 17.2, 255.4], [90, 90, 90, 90]])
    found = resample(maps, boxes)
    for k in range(3):
        torch.testing.assert_close(found[k : k + 1], resample(maps[k : k + 1], boxes[k : k + 1]))
    assert found.isfinite().all()


def test_box_beside_the_frame_and_box_without_a_point_of_the_grid():
    boxes = torch.tensor([[300.0, 10, 320, 40], [-40, -40, -20, -20], [100.2, 100.2, 100.4, 100.4]])
    assert not place_crops(torch.ones(3, 1, 8, 8), boxes, 64).any()
    assert cut_crops(torch.ones(3, 1, 256, 256), boxes, 8).isfinite().all()


def test_values_are_kept_in_half_precision_and_have_a_gradient():
    crops, boxes = torch.rand(1, 1, 32, 32, requires_grad=True), torch.tensor([[200.0, 180.0, 231.0, 211.0]])
    with torch.autocast("cpu", torch.bfloat16):
        found = place_crops(crops, boxes, 256)
        torch.testing.assert_close(cut_crops(found, boxes, 32), crops)
    (gradient,) = torch.autograd.grad(found.sum(), crops)
    torch.testing.assert_close(gradient, torch.ones_like(gradient))
