from custom.images.dicom_derived import object_names


def test_names_fit_for_dicom():
    long = "a" * 70
    names = {3: "cyst", 1: "cyst", 2: "cyst 2", 4: " a\\b\n c ", 5: "", 6: long, 7: long, 8: "cyst"}
    assert object_names(names) == {
        1: "cyst",
        2: "cyst 2",
        3: "cyst 3",
        4: "a b c",
        5: "object 5",
        6: "a" * 64,
        7: "a" * 62 + " 2",
        8: "cyst 4",
    }


def test_many_objects_of_one_name():
    assert len(set(object_names(dict.fromkeys(range(1, 20001), "cell")).values())) == 20000
