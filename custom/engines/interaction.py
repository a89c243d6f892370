"""Training with clicks: each object is prompted once, then corrected on the errors of its last mask.

As light SAMs learn it (SAM-Med2D, Cheng et al., 2023, https://arxiv.org/abs/2308.16184): box or click first, then
clicks on the errors, the mask before them given for a share of the objects, and the loss a mean over all passes.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage

from custom.clicks import Click, error_click
from custom.networks.frame_views import crop_frame, view_frame
from custom.networks.mcp_medsam import MCPMedSAMOutput
from custom.prompts import NO_BOX, NO_POINT, Prompts

#: Logit of a pixel of a mask that a user gives.
_CERTAIN = 10.0
#: Smallest and largest margin of the views of objects without a box.
_MARGINS = (0.1, 0.5)


class SimulatedClicks:
    """Draws how objects are prompted, and clicks on the errors of their masks.

    Args:
        clicks: number of corrections K after the first prompt.
        click_first: share of objects that are first prompted with one click in place of a box.
        previous_mask: probability that the mask before a click is given with it.
        centred: probability that a click lies at the centre of the largest error, else anywhere in it.
        moved_mask: share of the given masks that are moved by some pixels, as masks from elsewhere may be.
    """

    def __init__(
        self,
        *,
        clicks: int,
        click_first: float = 0.0,
        previous_mask: float = 0.75,
        centred: float = 0.5,
        moved_mask: float = 0.1,
    ) -> None:
        self.clicks, self.click_first, self.previous_mask = clicks, click_first, previous_mask
        self.centred, self.moved_mask = centred, moved_mask

    def start(
        self, image: torch.Tensor, prompts: Prompts, label: torch.Tensor, image_boxes: torch.Tensor
    ) -> tuple[Prompts, Correcting]:
        """Return the first prompts of a batch, and what makes the following ones.

        Args:
            image: Bx3x256x256.
            prompts: boxes BxNx4, crops, views and modality.
            label: true masks BxNx256x256.
            image_boxes: the part of the frame that shows the image, BxNx4.

        Returns:
            The first prompts, without views, and ``next_prompts`` of the network.
        """
        rng = np.random.default_rng(torch.randint(2**31, (1,)).item())  # restarts restore torch's generator
        truth = label.cpu().numpy() > 0
        # An object too small for the frame has no pixel there to click on.
        first = torch.from_numpy((rng.random(truth.shape[:2]) < self.click_first) & truth.any(axis=(2, 3)))
        correcting = Correcting(self, image, image_boxes, truth, first, prompts, rng)
        prompts = prompts._replace(views=None, view_boxes=None)
        if first.any():
            prompts = self._click_first(image, prompts, truth, image_boxes, first, rng)
        return prompts, correcting

    def _click_first(
        self,
        image: torch.Tensor,
        prompts: Prompts,
        truth: np.ndarray,
        image_boxes: torch.Tensor,
        first: torch.Tensor,
        rng: np.random.Generator,
    ) -> Prompts:
        """Replace the boxes of some objects by one click, and the content of the box by the whole image."""
        points = prompts.boxes.new_zeros(*first.shape, 1, 2)
        labels = torch.full((*first.shape, 1), NO_POINT, device=points.device)
        for b, n in first.nonzero().tolist():
            click = self.click(np.zeros_like(truth[b, n]), truth[b, n], rng)
            points[b, n, 0] = torch.tensor([click.x, click.y], dtype=points.dtype)
            labels[b, n, 0] = click.label
        chosen = first.to(points.device).unsqueeze(2)
        whole = image_boxes.to(points.dtype)
        crops = crop_frame(image, whole, prompts.crops.shape[-1])
        features = prompts.image_features
        return prompts._replace(
            boxes=torch.where(chosen, NO_BOX, prompts.boxes),
            image_features=None if features is None else torch.where(chosen, 0.0, features),  # they show the box
            points=points,
            point_labels=labels,
            crops=torch.where(chosen[..., None, None], crops, prompts.crops),
            crop_boxes=torch.where(chosen, whole, prompts.boxes),
        )

    def click(self, mask: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> Click | None:
        """Draw a click on the largest error of a mask; None where there is no error."""
        return error_click(mask, truth, None if rng.random() < self.centred else rng)


class Correcting:
    """Makes the next prompts of one batch: ``next_prompts`` of the network."""

    def __init__(
        self,
        rules: SimulatedClicks,
        image: torch.Tensor,
        image_boxes: torch.Tensor,
        truth: np.ndarray,
        first: torch.Tensor,
        prompts: Prompts,
        rng: np.random.Generator,
    ) -> None:
        self.rules, self.image, self.image_boxes, self.truth, self.rng = rules, image, image_boxes, truth, rng
        self.first, self.views, self.view_boxes = first, prompts.views, prompts.view_boxes
        self.margins = rng.uniform(*_MARGINS, size=(*first.shape, 1))
        self.done = 0

    def __call__(self, prompts: Prompts, output: MCPMedSAMOutput) -> Prompts | None:
        """Click on the errors; after one click in place of a box, look closer at its mask first."""
        if self.done == self.rules.clicks:
            return None
        self.done += 1
        logits = output.mask_logits.detach().float().clone()  # the loss sees the output itself
        masks = (logits > 0).cpu().numpy()
        points = prompts.boxes.new_zeros(*self.first.shape, 1, 2)
        labels = torch.full((*self.first.shape, 1), NO_POINT, device=points.device)
        for b, n in np.ndindex(*self.first.shape):
            looking = self.done == 1 and self.first[b, n]
            click = None if looking else self.rules.click(masks[b, n], self.truth[b, n], self.rng)
            if click is not None:
                points[b, n, 0] = torch.tensor([click.x, click.y], dtype=points.dtype)
                labels[b, n, 0] = click.label
        if prompts.points is not None:
            points, labels = torch.cat([prompts.points, points], 2), torch.cat([prompts.point_labels, labels], 2)
        prompts = self._with_views(prompts._replace(points=points, point_labels=labels), logits)
        return prompts._replace(masks=self._given(logits))

    def _given(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the masks that are given with the clicks, zeros for the others."""
        given = torch.from_numpy(self.rng.random(self.first.shape) < self.rules.previous_mask)
        for b, n in given.nonzero().tolist():
            if self.rng.random() < self.rules.moved_mask:
                moved = ndimage.shift((logits[b, n] > 0).cpu().numpy(), self.rng.integers(-6, 7, size=2), order=0)
                logits[b, n] = (2.0 * torch.from_numpy(moved) - 1.0) * _CERTAIN
        return logits * given.to(logits.device)[..., None, None]

    def _with_views(self, prompts: Prompts, logits: torch.Tensor) -> Prompts:
        """Show the native image around boxes; objects without one as their last masks and the frame have it."""
        boxed = prompts._replace(views=self.views, view_boxes=self.view_boxes)
        if not self.first.any():
            return boxed
        found = view_frame(self.image, boxed, logits, shown=self.image_boxes, margin=self.margins)
        first = self.first.to(logits.device)
        return boxed._replace(
            views=torch.where(first[..., None, None, None], found.views, boxed.views),
            view_boxes=torch.where(first[..., None], found.view_boxes, boxed.view_boxes),
        )
