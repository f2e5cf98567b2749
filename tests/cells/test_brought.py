import sys
import types
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_dinobloom.cells import dyed
from napari_dinobloom.cells.brought import Brought, brought_fields
from napari_dinobloom.cells.scale import Scale
from napari_dinobloom.cells.segment import segment
from napari_dinobloom.errors import InputError
from napari_dinobloom.io.canvas import STAINS
from napari_dinobloom.io.generate import generate_smear
from napari_dinobloom.io.masks import FieldMasks, draw
from napari_dinobloom.progress import drain

BLANK = np.full((60, 80, 3), 230, np.uint8)
SCALE = Scale(0.1, "user")


def _find(brought, image=BLANK):
    return drain(brought.iter_find(image, SCALE))


@pytest.fixture
def proposals(monkeypatch):
    """Stand-in for the search in a box: the cell is the box without one pixel all around."""
    asked = []

    def cell_in_box(image, box, pixel_size_um, *, look):
        assert look is not None  # found once for all boxes
        asked.append((box, pixel_size_um))
        y0, x0, y1, x1 = (int(v) for v in box)
        inner = np.asarray([[y0 + 1, x0 + 1, y1 - 1, x1 - 1]], np.int32)
        cell = np.ones((y1 - y0 - 2, x1 - x0 - 2), bool)
        return FieldMasks(inner, np.ones(1, np.int32), [cell], [cell])

    module = types.ModuleType("napari_dinobloom.cells.propose")
    module.cell_in_box = cell_in_box
    monkeypatch.setitem(sys.modules, "napari_dinobloom.cells.propose", module)
    return asked


def test_a_labels_layer_becomes_the_same_masks():
    labels = np.zeros((60, 80), np.int32)
    labels[30:50, 10:30], labels[5:20, 40:60], labels[5:20, 60:70] = 4, 9, 2
    nuclei = np.zeros_like(labels)
    nuclei[35:40, 5:20] = 1  # reaches out of its cell
    found = _find(Brought.from_labels(labels, nuclei))
    assert found.masks.numbers.tolist() == [1, 2, 3]
    assert found.masks.boxes.tolist() == [[5, 40, 20, 60], [5, 60, 20, 70], [30, 10, 50, 30]]
    drawn = draw(found.masks, (60, 80))
    assert [np.unique(labels[drawn == n]).tolist() for n in (1, 2, 3)] == [[9], [2], [4]]
    assert (drawn > 0).sum() == (labels > 0).sum()
    assert np.array_equal(draw(found.masks, (60, 80), "nuclei") > 0, (nuclei > 0) & (labels == 4))
    assert found.classes == ()


def test_an_array_of_labels_is_a_segmenter_as_it_is():
    image = np.random.default_rng(0).integers(90, 200, (64, 64, 3), np.uint8)
    labels = np.zeros((64, 64), np.int64)
    labels[10:40, 20:50] = 7
    found = segment(image, 0.1, segmenter=labels)
    assert np.array_equal(np.asarray(found.labels) == 1, labels == 7)


def test_the_key_follows_the_content_only(tmp_path):
    labels = np.zeros((60, 80), np.uint8)
    labels[5:20, 40:60] = 1
    other = labels.copy()
    other[5, 40] = 0
    Image.fromarray(labels).save(tmp_path / "a.png")
    Image.fromarray(labels).save(tmp_path / "b.png")
    Image.fromarray(other).save(tmp_path / "c.png")
    a, b, c = (Brought.from_file(tmp_path / name) for name in ("a.png", "b.png", "c.png"))
    assert a.key == b.key != c.key
    assert Brought.from_labels(labels).key != Brought.from_labels(other).key
    assert Brought.from_labels(labels).key != Brought.from_labels(labels, labels).key
    assert (a.name, a.licence) == ("labels:a.png", "")


def test_boxes_ask_for_the_cell_in_them_and_classes_come_along(tmp_path, proposals):
    path = tmp_path / "a.csv"
    path.write_text("x0,y0,x1,y1,class\n40,30,60,50,blast\n1,2,21,22,lymphocyte\n5,5,15,15,RBC\n5,25,15,35,Platelets\n")
    found = _find(Brought.from_file(path))
    assert proposals == [((30, 40, 50, 60), 0.1), ((2, 1, 22, 21), 0.1)]
    assert found.masks.boxes.tolist() == [[3, 2, 21, 20], [31, 41, 49, 59]]
    assert not any(nucleus.any() for nucleus in found.masks.nuclei)  # the picture is blank
    assert found.classes == ("lymphocyte", "blast")
    assert len(found.notes) == 1
    assert found.notes[0].startswith("a.csv: 1 Platelets, 1 RBC left out")


def test_an_outline_is_drawn_with_its_nucleus_cut_to_it(tmp_path):
    path = tmp_path / "a.txt"
    ring = np.asarray([[10, 5], [30, 5], [30, 25], [10, 25]]) / [80, 60]
    path.write_text("0 " + " ".join(map(str, ring.ravel())))
    masks = _find(Brought.from_file(path)).masks
    assert masks.boxes.tolist() == [[5, 10, 25, 30]]
    assert masks.cells[0].all()
    assert not masks.nuclei[0].any()


def test_a_bad_file_is_an_error_alone_and_a_note_among_others(tmp_path, proposals):
    (tmp_path / "a.xml").write_text("<annotation>")
    (tmp_path / "b.csv").write_text("x0,y0,x1,y1\n1,2,21,22\n")
    with pytest.raises(InputError, match=r"a\.xml: is no complete XML"):
        _find(Brought.from_file(tmp_path / "a.xml"))
    images = {name: Path(f"/data/{name}.png") for name in "abc"}
    fields = brought_fields(tmp_path, images)
    assert fields["c"] is None
    found = {name: _find(fields[name]) for name in "ab"}
    assert {name: len(f.masks) for name, f in found.items()} == {"a": 0, "b": 1}
    assert "is no complete XML" in found["a"].notes[0]
    assert found["b"].notes == ()


def test_one_table_serves_many_images_and_keys_follow_their_rows(tmp_path, proposals):
    path = tmp_path / "boxes.csv"
    images = {"f0": Path("/data/anna/f0.png"), "f0-2": Path("/data/bert/f0.png"), "f1": Path("/data/bert/f1.png")}
    path.write_text("file,x0,y0,x1,y1\nanna/f0.png,1,1,11,11\nbert/f0.png,2,2,12,12\nbert/f0.png,20,20,1,30\n")
    before = brought_fields(path, images)
    assert before["f1"] is None
    found = {name: _find(before[name]) for name in ("f0", "f0-2")}
    assert [len(f.masks) for f in found.values()] == [1, 1]
    assert "boxes.csv, line 4" in found["f0-2"].notes[0]
    path.write_text("file,x0,y0,x1,y1\nbert/f0.png,3,2,12,12\nanna/f0.png,1,1,11,11\n")
    after = brought_fields(path, images)
    assert after["f0"].key == before["f0"].key
    assert after["f0-2"].key != before["f0-2"].key


def test_a_table_without_a_file_column_fits_one_image_only(tmp_path, proposals):
    path = tmp_path / "boxes.csv"
    path.write_text("x0,y0,x1,y1\n1,1,11,11\n")
    images = {"f0": Path("/d/f0.png"), "f1": Path("/d/f1.png")}
    with pytest.raises(InputError, match="no column 'file'"):
        brought_fields(path, images)
    assert len(_find(brought_fields(path, {"f0": images["f0"]})["f0"]).masks) == 1


def test_masks_that_would_fill_the_memory_are_refused():
    labels = np.zeros((60, 80), np.int32)
    for number in range(1, 10):  # every one reaches from corner to corner
        labels[0, number], labels[59, 79 - number] = number, number
    with pytest.raises(InputError, match="cover the image 8 times"):
        _find(Brought.from_labels(labels))


def test_labels_of_another_image_are_refused():
    with pytest.raises(InputError, match="Draw on this image"):
        _find(Brought.from_labels(np.ones((60, 81), np.int32)))
    with pytest.raises(InputError, match="at one size"):
        Brought.from_labels(np.ones((60, 80), np.int32), np.ones((60, 81), np.int32))


@pytest.mark.parametrize("stain", sorted(STAINS))
def test_nuclei_that_nobody_marked_are_found_by_the_stain(stain):
    smear = generate_smear(5, stain=stain)
    masks = FieldMasks.from_labels(smear.labels, np.zeros_like(smear.labels))
    found = dyed.with_nuclei(np.asarray(smear.image), masks, Scale(smear.pixel_size_um, "user"))
    drawn, truth = draw(found, smear.labels.shape, "nuclei") > 0, smear.nuclei > 0
    dice = 2 * (drawn & truth).sum() / (drawn.sum() + truth.sum())
    assert dice > 0.9
    assert not (drawn & (smear.labels == 0)).any()


def test_given_nuclei_stay_and_a_cell_without_stain_has_none():
    labels = np.zeros((60, 80), np.int32)
    labels[30:50, 10:30], labels[5:20, 40:60] = 1, 2
    nuclei = np.where(np.arange(80) > 20, labels, 0) * (labels == 1)
    masks = FieldMasks.from_labels(labels, nuclei)
    found = dyed.with_nuclei(BLANK, masks, SCALE)
    assert np.array_equal(found.nuclei[0], masks.nuclei[0])
    assert not found.nuclei[1].any()


@pytest.mark.real_data
def test_boxes_of_bccd_name_the_degenerate_ones_and_give_the_white_cells(real_data):
    folder = real_data / "bccd"
    names = ("BloodImage_00000", "BloodImage_00338", "BloodImage_00343")
    fields = brought_fields(folder / "boxes", {name: folder / "images" / f"{name}.jpg" for name in names})
    degenerate = []
    for name, field in fields.items():
        image = np.asarray(Image.open(folder / "images" / f"{name}.jpg"))
        found = _find(field, image)
        white = (folder / "boxes" / f"{name}.xml").read_text().count("<name>WBC</name>")
        assert len(found.masks) == white >= 1
        assert set(found.classes) == {"WBC"}
        degenerate += [note for note in found.notes if "no area" in note]
    assert [note.split(":")[0].split(",")[0] for note in degenerate] == [f"{name}.xml" for name in names[1:]]


@pytest.mark.real_data
def test_masks_of_bccd_are_cells_with_nuclei(real_data):
    folder = real_data / "bccd"
    dice = []
    for number in (1, 11, 21, 31, 41):
        name = f"BloodImage_{number:05d}"
        parts = np.asarray(Image.open(folder / "masks" / f"{name}.png"))
        image = np.asarray(Image.open(folder / "images" / f"{name}.jpg"))
        masks = _find(Brought.from_file(folder / "masks" / f"{name}.png"), image).masks
        assert np.array_equal(draw(masks, parts.shape) > 0, parts > 0)
        assert np.array_equal(draw(masks, parts.shape, "nuclei") > 0, parts == 2)
        whole = _find(Brought.from_labels((parts > 0).astype(np.uint8)), image).masks
        found = draw(whole, parts.shape, "nuclei") > 0
        dice.append(2 * (found & (parts == 2)).sum() / (found.sum() + (parts == 2).sum()))
    assert min(dice) > 0.85
