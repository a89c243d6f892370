import numpy as np

from custom.images.colours import colour_of, colour_table


def test_the_table_holds_the_colour_of_each_label():
    table = colour_table()
    assert table.shape == (256, 3) and table.dtype == np.uint8 and not table[0].any()
    assert all((table[value] == colour_of(value)).all() for value in range(1, 256))
    assert len(np.unique(table[:7], axis=0)) == 7
