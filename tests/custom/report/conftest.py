import pytest


@pytest.fixture
def write_cases():
    """Return a function that writes ``cases.csv``: rows of (case, modality, n_masks, dsc, nsd)."""

    def write(folder, rows, columns="case,modality,n_masks,dsc,nsd"):
        folder.mkdir(parents=True, exist_ok=True)
        lines = [columns, *(",".join(map(str, row)) for row in rows)]
        (folder / "cases.csv").write_text("\n".join(lines) + "\n")
        return folder

    return write
