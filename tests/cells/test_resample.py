import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_dinobloom.cells.resample import REACH, Resampler

PICTURE = np.random.default_rng(2).integers(0, 256, (300, 300, 3), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", REACH)
@settings(max_examples=60, deadline=None)
@given(
    side=st.integers(8, 300),
    size=st.integers(8, 96),
    ends=st.lists(st.floats(0, 1, allow_nan=False), min_size=4, max_size=4),
    harsh=st.booleans(),
)
def test_the_fast_way_is_pillow_to_the_last_bit(interpolation, side, size, ends, harsh):
    window = PICTURE[:side, :side]
    window = np.where(window > 127, np.uint8(255), np.uint8(0)) if harsh else window
    (x0, x1), (y0, y1) = sorted(ends[:2]), sorted(ends[2:])
    if min(x1 - x0, y1 - y0) * side < 1:
        return
    box = (x0 * side, y0 * side, x1 * side, y1 * side)
    picture = Image.fromarray(np.ascontiguousarray(window))
    expected = np.asarray(picture.resize((size, size), Image.Resampling[interpolation.upper()], box=box))
    for many in (False, True):
        out = np.zeros((size, size, 3), np.uint8)
        Resampler(size, interpolation, many=many).resize(window, box, out)
        assert np.array_equal(out, expected), many


@pytest.mark.parametrize("interpolation", REACH)
def test_windows_of_any_shape_are_pillows(interpolation):
    for height, width in ((300, 40), (40, 300), (120, 121)):
        window = PICTURE[:height, :width]
        out = np.zeros((32, 32, 3), np.uint8)
        Resampler(32, interpolation, many=True).resize(window, (0.0, 0.0, float(width), float(height)), out)
        way = Image.Resampling[interpolation.upper()]
        assert np.array_equal(out, np.asarray(Image.fromarray(window).resize((32, 32), way)))


def test_a_window_that_may_not_be_written_to_is_read_all_the_same():
    window = PICTURE[:64, :64].copy()
    window.flags.writeable = False
    out = np.zeros((32, 32, 3), np.uint8)
    Resampler(32, "bilinear", many=True).resize(window, (0.0, 0.0, 64.0, 64.0), out)
    assert np.array_equal(out, np.asarray(Image.fromarray(window).resize((32, 32), Image.Resampling.BILINEAR)))


def test_where_machine_code_cannot_be_kept_it_is_made_anew(monkeypatch):
    import numba

    from napari_dinobloom.cells import resample

    real = numba.njit

    def njit(kind, *, cache, **options):
        if cache:
            raise RuntimeError("no locator available")
        return real(kind, cache=False, **options)

    monkeypatch.setattr(numba, "njit", njit)
    resample._compiled.cache_clear()
    try:
        out = np.zeros((8, 8, 3), np.uint8)
        Resampler(8, "bilinear", many=True).resize(PICTURE[:20, :20], (2.0, 2.0, 18.0, 18.0), out)
    finally:
        resample._compiled.cache_clear()
    picture = Image.fromarray(np.ascontiguousarray(PICTURE[:20, :20]))
    assert np.array_equal(out, np.asarray(picture.resize((8, 8), Image.Resampling.BILINEAR, box=(2, 2, 18, 18))))
