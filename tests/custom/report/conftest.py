import pytest

from custom.handlers.mask_report import COLUMNS

_MASK_COLUMNS = ",".join(COLUMNS)


@pytest.fixture
def write_cases():
    """Return a function that writes ``cases.csv``: rows of (case, modality, n_masks, dsc, nsd)."""

    def write(folder, rows, columns="case,modality,n_masks,dsc,nsd"):
        folder.mkdir(parents=True, exist_ok=True)
        lines = [columns, *(",".join(map(str, row)) for row in rows)]
        (folder / "cases.csv").write_text("\n".join(lines) + "\n")
        return folder

    return write


@pytest.fixture
def write_masks(tmp_path):
    """Return a function that writes ``masks.csv``: rows of (modality, extent, predicted IoU, true IoU, modality)."""

    def write(rows, columns=_MASK_COLUMNS, name="evaluated"):
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        lines = [f"case{i},{modality},0,1,{','.join(map(str, row))},0.5" for i, (modality, *row) in enumerate(rows)]
        (folder / "masks.csv").write_text("\n".join([columns, *lines]) + "\n")
        return folder

    return write
