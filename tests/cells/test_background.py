import numpy as np

from napari_dinobloom.cells.background import absorbance, find_background


def _field(colour: tuple[int, int, int], tilt: float) -> np.ndarray:
    """Background of one colour under light that rises by `tilt` from left to right, a dark square in the middle."""
    light = 1 + tilt * np.linspace(-1, 1, 300)[None, :, None]
    picture = np.broadcast_to(np.array(colour) * light, (200, 300, 3)).copy()
    picture[80:120, 120:180] *= np.exp(-np.array([0.9, 1.2, 0.4]))
    return np.rint(picture).clip(0, 255).astype(np.uint8)


def test_absorbance_of_a_known_dye_does_not_depend_on_light_or_white_balance():
    for colour in ((230, 230, 230), (250, 225, 160), (190, 205, 215)):
        for tilt in (0.0, 0.06):
            picture = _field(colour, tilt)
            density = absorbance(picture, find_background(picture))
            assert np.abs(density[100, 150] - [0.9, 1.2, 0.4]).max() < 0.05, (colour, tilt)
            assert np.abs(density[10:60].mean(axis=(0, 1))).max() < 0.02
            assert np.abs(density[10, ::30]).max() < 0.03


def test_background_is_found_where_cells_cover_most_of_the_picture():
    picture = np.full((200, 200, 3), (200, 150, 160), np.uint8)
    picture[:, :50] = (240, 235, 225)
    assert np.abs(find_background(picture).colour - [240, 235, 225]).max() < 2


def test_a_part_of_a_picture_has_the_absorbance_that_the_whole_has_there():
    picture = _field((230, 230, 230), 0.06)
    light = find_background(picture)
    whole = absorbance(picture, light)
    part = absorbance(picture[50:150, 100:250], light, (0.25, 1 / 3, 0.75, 2.5 / 3))
    assert np.abs(part - whole[50:150, 100:250]).max() < 0.01


def test_a_picture_without_light_has_no_absorbance():
    picture = np.zeros((64, 64, 3), np.uint8)
    assert not absorbance(picture, find_background(picture)).any()
