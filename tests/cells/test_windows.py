import gc
import weakref
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_dinobloom.cells import windows
from napari_dinobloom.cells.windows import Parts, mirror

PIXELS = np.random.default_rng(4).integers(0, 256, (500, 700, 3), dtype=np.uint8)


@settings(deadline=None)
@given(st.integers(-500, 500), st.integers(1, 60), st.integers(1, 40))
def test_mirroring_is_numpys_symmetric_padding(start, length, size):
    wide = np.pad(np.arange(size), 600, mode="symmetric")
    assert np.array_equal(mirror(start, length, size), wide[600 + start : 600 + start + length])


@pytest.fixture
def counted(monkeypatch):
    """A lazy picture of 5 x 7 blocks of 100 pixels, and how often each was read."""
    import dask.array as da

    monkeypatch.setattr(windows, "BLOCK", 100)
    reads = Counter()

    def read(block_info=None):
        (y0, y1), (x0, x1), _ = block_info[None]["array-location"]
        reads[y0 // 100, x0 // 100] += 1
        return PIXELS[y0:y1, x0:x1]

    chunks = ((100,) * 5, (100,) * 7, (3,))
    meta = np.empty((0, 0, 0), np.uint8)
    return da.map_blocks(read, chunks=chunks, dtype=np.uint8, meta=meta), reads


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_part_is_the_slice(data):
    import dask.array as da

    y0, x0 = data.draw(st.integers(0, 499)), data.draw(st.integers(0, 699))
    height, width = data.draw(st.integers(1, 500 - y0)), data.draw(st.integers(1, 700 - x0))
    expected = PIXELS[y0 : y0 + height, x0 : x0 + width]
    least, windows.BLOCK = windows.BLOCK, 64
    try:
        for image in (PIXELS, da.from_array(PIXELS, chunks=((130, 370), (700,), (3,))), da.from_array(PIXELS, 30)):
            assert np.array_equal(Parts(image).part(y0, x0, height, width), expected)
    finally:
        windows.BLOCK = least


def test_each_block_of_a_lazy_picture_is_read_once(counted):
    image, reads = counted
    rng = np.random.default_rng(0)
    y, x = rng.uniform(20, 480, 400), rng.uniform(20, 680, 400)
    picture = Parts(image)
    for row in picture.order(y, x):
        top, left = int(y[row]) - 20, int(x[row]) - 20
        assert np.array_equal(picture.part(top, left, 40, 40), PIXELS[top : top + 40, left : left + 40])
    assert len(reads) == 35
    assert set(reads.values()) == {1}


def test_only_the_blocks_around_cells_are_read(counted):
    image, reads = counted
    Parts(image).part(210, 310, 50, 50)
    assert dict(reads) == {(2, 3): 1}


def test_what_is_kept_of_a_lazy_picture_is_bounded(counted, monkeypatch):
    image, reads = counted
    monkeypatch.setattr(windows, "KEPT_BYTES", 6 * 100 * 100 * 3)
    picture = Parts(image)
    for x in range(0, 700, 100):
        picture.part(0, x, 50, 50)
    picture.part(0, 0, 50, 50)
    assert reads[0, 0] == 2, "seven blocks do not fit"
    picture.part(0, 600, 50, 50)
    assert reads[0, 6] == 1, "the last ones do"


def test_blocks_go_with_their_owner_without_a_garbage_collection(counted):
    image, _ = counted
    parts = Parts(image)
    parts.part(0, 0, 250, 250)
    gone = weakref.ref(parts)
    gc.collect()
    gc.disable()
    try:
        del parts
        assert gone() is None
    finally:
        gc.enable()
