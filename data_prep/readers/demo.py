"""Reader of the phantom set: it computes its cases instead of reading them."""

from __future__ import annotations

from custom.images.image import Image
from custom.modalities import MODALITIES
from data_prep.phantoms import make_phantom
from data_prep.readers.base import TRAIN, VALIDATION, Case, Reader, Source

TRAINING_CASES, VALIDATION_CASES = 4, 2  # of each modality


class DemoReader(Reader):
    """Phantoms of all eleven modalities, four for training and two for validation of each; the same on every run."""

    name = "demo"

    def sources(self) -> list[Source]:
        """List the phantoms, modality by modality."""
        numbers = range(TRAINING_CASES + VALIDATION_CASES)
        return [Source(f"{m}_Phantom_{n:02d}", {"modality": m, "number": n}) for m in MODALITIES for n in numbers]

    def load(self, source: Source) -> Case:
        """Make one phantom."""
        modality, number = source.entry["modality"], source.entry["number"]
        phantom = make_phantom(modality, number)
        kind = "picture" if phantom.spacing is None else "volume"
        return Case(
            name=source.name,
            modality=modality,
            dataset="Phantom",
            split=TRAIN if number < TRAINING_CASES else VALIDATION,
            image=Image(path=source.name, format="array", array=phantom.image, kind=kind, spacing=phantom.spacing),
            label=phantom.label,
            label_file=source.name,
            names=phantom.names,
            instance="*" in phantom.names,
            meta={"license": "Apache-2.0", "source": "computed phantom"},
        )
