import numpy as np
import pandas as pd
import pytest
from PIL import Image

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.canvas import STAINS
from napari_dinobloom.io.cell_types import CELL_TYPES
from napari_dinobloom.io.generate import generate_smear, iter_write_smears, write_smears
from napari_dinobloom.progress import drain


def test_one_seed_gives_one_smear_and_another_seed_another():
    first, again, other = generate_smear(3), generate_smear(3), generate_smear(4)
    assert np.array_equal(first.image, again.image)
    assert np.array_equal(first.labels, again.labels)
    assert first.table.equals(again.table)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("stain", sorted(STAINS))
def test_truth_fits_the_picture(stain):
    smear = generate_smear(7, height=300, width=400, stain=stain)
    assert smear.stain == stain
    assert smear.image.shape == (300, 400, 3)
    assert len(smear.classes) == smear.labels.max() == len(smear.table)
    assert smear.table["class"].tolist() == smear.classes
    assert not (smear.nuclei[smear.nuclei > 0] != smear.labels[smear.nuclei > 0]).any()
    green = smear.image[..., 1].astype(float)
    background = np.median(green[smear.labels == 0])
    for row in smear.table.itertuples():
        assert row.area_px == (smear.labels == row.label).sum()
        nucleus = green[smear.nuclei == row.label]
        assert len(nucleus) == row.nucleus_area_px > 0
        assert nucleus.mean() < 0.75 * background


def test_cells_have_the_size_of_their_type_whatever_the_pixel_size():
    for pixel in (0.1, 0.2):
        for name, kind in CELL_TYPES.items():
            low, high = kind.radius_um
            smear = generate_smear(
                1,
                height=round(60 / pixel),
                width=round(60 / pixel),
                n_white=2,
                pixel_size_um=pixel,
                touching=0,
                composition={name: 1.0},
            )
            inside = smear.table[
                (smear.table.y0 > 0)
                & (smear.table.x0 > 0)
                & (smear.table.y1 < 60 / pixel)
                & (smear.table.x1 < 60 / pixel)
            ]
            radius = np.sqrt(inside.area_px / np.pi) * pixel
            assert ((radius > 0.9 * low) & (radius < 1.1 * high)).all()


def test_touching_cells_touch_and_crowding_adds_red_cells():
    from scipy import ndimage as ndi

    smear = generate_smear(5, n_white=6, touching=1.0)
    _, count = ndi.label(smear.labels > 0)
    assert count < len(smear.classes)
    empty, full = (generate_smear(5, crowding=c, n_white=0).image[..., 1] for c in (0.0, 0.6))
    assert (full < 200).mean() > (empty < 200).mean() + 0.2


def test_written_smears_read_back_as_generated(tmp_path):
    paths = write_smears(tmp_path / "a", 2, seed=9, height=160, width=200)
    again = drain(iter_write_smears(tmp_path / "b", 2, seed=9, height=160, width=200))
    assert [p.relative_to(tmp_path / "a") for p in paths] == [p.relative_to(tmp_path / "b") for p in again]
    assert [p.read_bytes() for p in paths] == [p.read_bytes() for p in again]
    table = pd.read_csv(tmp_path / "a" / "truth" / "cells.csv")
    for path in paths:
        labels = np.asarray(Image.open(tmp_path / "a" / "truth" / f"{path.stem}-cells.png"))
        nuclei = np.asarray(Image.open(tmp_path / "a" / "truth" / f"{path.stem}-nuclei.png"))
        rows = table[table.file == f"images/{path.name}"]
        assert rows.area_px.tolist() == np.bincount(labels.ravel())[1:].tolist()
        assert rows.nucleus_area_px.tolist() == np.bincount(nuclei.ravel())[1:].tolist()
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["images", "truth"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 5}, "32 x 32"),
        ({"n_white": -1}, "n_white"),
        ({"pixel_size_um": 5.0}, "pixel_size_um"),
        ({"stain": "gram"}, "gram"),
        ({"composition": {"no such cell": 1.0}}, "composition"),
        ({"composition": {"monocyte": 0.0}}, "composition"),
    ],
)
def test_what_cannot_be_drawn_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        generate_smear(0, **options)


def test_a_folder_that_may_not_be_written_is_named(tmp_path):
    (tmp_path / "here").write_text("a file")
    with pytest.raises(StudyError, match=r"here: could not be written"):
        write_smears(tmp_path / "here", 1)
