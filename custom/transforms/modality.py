"""Let the network guess now and then."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from custom.modalities import UNKNOWN_MODALITY


class RandUnknownModalityd(RandomizableTransform, MapTransform):
    """Hide the modality from the prompt in some of the items, not from the loss.

    A network that is always told the modality need not see it in the image: its classifier repeats what it was told,
    and knows nothing where a user leaves the modality open.

    Args:
        keys: index of the modality.
        prob: probability of hiding it.
        prompt_key: where the index for the prompt goes, ``UNKNOWN_MODALITY`` where it is hidden.
    """

    def __init__(self, keys: KeysCollection, *, prob: float, prompt_key: str = "modality_prompt") -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.prompt_key = prompt_key

    def __call__(self, data: Mapping[Hashable, object]) -> dict[Hashable, object]:
        """Add the index for the prompt."""
        item = dict(data)
        self.randomize(None)
        for key in self.key_iterator(item):
            item[self.prompt_key] = UNKNOWN_MODALITY if self._do_transform else item[key]
        return item
