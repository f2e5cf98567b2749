"""Numbers of cells read from many ids at once."""

from __future__ import annotations

import pandas as pd

from napari_dinobloom.io.celltable import cell_id, cell_numbers, split_cell_id


def test_numbers_are_those_of_the_ids_one_by_one():
    numbers = (1, 99999, 100000, 123456789)
    ids = pd.Index([cell_id(field, number) for field in ("f", "f_9", "12345", "Blut_ä7") for number in numbers])
    assert cell_numbers(ids).tolist() == [int(one.rpartition(":")[2]) for one in ids]
    assert cell_numbers(ids[:1]).tolist() == [split_cell_id(ids[0])[1]] == [1]
    assert cell_numbers(ids[:0]).tolist() == []
