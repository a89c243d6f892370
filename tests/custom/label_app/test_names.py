from types import SimpleNamespace

import pytest

from custom.errors import InputError
from custom.label_app.names import check_index, check_upload, plain_name

ENDINGS = (".nii.gz", ".png")


@pytest.mark.parametrize("name", ["a/b", "/a", "a\\b", "..", ".", "", "a\0", None, 7])
def test_paths(name):
    with pytest.raises(InputError, match="request: tag: found .* a name without"):
        plain_name(name, "tag")


def test_names():
    assert plain_name("case 1.final", "tag") == "case 1.final"


@pytest.mark.parametrize("name", ["datastore_v2.json", ".lock", ".png", "a", "a.py", "a.png.sh"])
def test_other_files_are_not_uploaded(name):
    with pytest.raises(InputError, match="file name: found"):
        check_upload(name, ENDINGS)
    check_upload("a.png", ENDINGS)


def index(images_dir=".", labels_dir="labels", image="a", ending=".png", tag="final", label_ending=".nii.gz"):
    label = SimpleNamespace(ext=label_ending)
    item = SimpleNamespace(image=SimpleNamespace(ext=ending), labels={tag: label})
    return SimpleNamespace(images_dir=images_dir, labels_dir=labels_dir, objects={image: item})


@pytest.mark.parametrize(
    "named",
    [
        {"images_dir": "/etc"},
        {"labels_dir": "../labels"},
        {"image": "../../etc/passwd", "ending": ""},
        {"ending": "/../x"},
        {"tag": ".."},
        {"label_ending": "/../../x"},
    ],
)
def test_an_index_stays_in_its_folder(named):
    check_index(index(), "x.json")
    with pytest.raises(InputError, match="x.json: "):
        check_index(index(**named), "x.json")
