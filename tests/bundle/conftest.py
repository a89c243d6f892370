import json
import shutil
from pathlib import Path

import pytest


def part_of(prepared, folder: Path, modalities: tuple[str, ...], training: int, validation: int) -> Path:
    """Copy some cases of a prepared set as a separate set."""
    index = json.loads((prepared.root / "dataset.json").read_text())
    for split, count in (("training", training), ("validation", validation)):
        cases = [c for m in modalities for c in [c for c in index[split] if c["modality"] == m][:count]]
        for path in (case[key] for case in cases for key in ("image", "label")):
            (folder / path).parent.mkdir(exist_ok=True)
            shutil.copy(prepared.root / path, folder / path)
        index[split] = cases
    index["modalities"] = [m for m in index["modalities"] if m in modalities]
    (folder / "dataset.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="session")
def small_set(prepared_demo, tmp_path_factory) -> Path:
    """Four training cases and two validation cases of the demo set."""
    return part_of(prepared_demo, tmp_path_factory.mktemp("small"), ("US", "CT"), 2, 1)


@pytest.fixture(scope="session")
def two_cases(prepared_demo, tmp_path_factory) -> Path:
    """One training case and one validation case of the demo set."""
    return part_of(prepared_demo, tmp_path_factory.mktemp("two_cases"), ("US",), 1, 1)
