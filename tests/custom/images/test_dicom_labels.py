import numpy as np
import pytest

from custom.errors import InputError
from custom.images.dicom import read_series
from custom.images.dicom_labels import LABEL_READERS, label_references
from custom.images.dicom_rtstruct_writing import write_rtstruct
from custom.images.dicom_seg_writing import write_seg


@pytest.mark.parametrize(("kind", "write"), [("SEG", write_seg), ("RTSTRUCT", write_rtstruct)])
def test_references_and_readers(tmp_path, write_stack, kind, write):
    write_stack(tmp_path / "ct", np.zeros((3, 6, 7), np.int16))
    series = read_series(tmp_path / "ct")
    label = np.zeros((3, 6, 7), np.uint8)
    label[1, 2:4, 2:5] = 1
    write(tmp_path / "label.dcm", label, {1: "liver"}, series)
    references = label_references(tmp_path / "label.dcm")
    assert references.images == {series.uid: frozenset(series.sop_uids)}
    assert references.frames_of_reference == {"1.2.3.5"}
    read, names = LABEL_READERS[kind](tmp_path / "label.dcm", series)
    np.testing.assert_array_equal(read, label)
    assert names == {1: "liver"}


def test_no_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        label_references(tmp_path / "none.dcm")
