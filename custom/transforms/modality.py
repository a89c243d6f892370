"""Hide the modality from the prompt in some training items."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from custom.modalities import UNKNOWN_MODALITY


class RandUnknownModalityd(RandomizableTransform, MapTransform):
    """Hide the modality from the prompt in some of the items, not from the loss.

    A network that always gets the modality as a prompt need not recognise it in the image. Its classifier then repeats
    the prompt and knows nothing if a user declares no modality.

    Args:
        keys: index of the modality.
        prob: probability of hiding it.
        prompt_key: key of the index for the prompt, ``UNKNOWN_MODALITY`` if hidden.
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
