from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_dinobloom.cells import segmenter as module
from napari_dinobloom.cells.background import find_background
from napari_dinobloom.cells.scale import Scale
from napari_dinobloom.cells.segmenter import Found, get_segmenter, segmenters_of
from napari_dinobloom.errors import InputError
from napari_dinobloom.io.masks import FieldMasks
from napari_dinobloom.progress import Progress, drain


def test_sorting_keeps_what_belongs_to_each_cell():
    boxes = np.asarray([[5, 0, 7, 2], [0, 9, 2, 11], [0, 1, 2, 3], [0, 1, 3, 3]], np.int32)
    cells = [np.full((y1 - y0, x1 - x0), True) for y0, x0, y1, x1 in boxes]
    masks = FieldMasks(boxes, np.asarray([4, 3, 2, 1], np.int32), cells, [~cell for cell in cells])
    found = Found(masks, hints=("a", "b", "c", "d"), classes=("A", "B", "C", "D"), notes=("n",)).sorted()
    assert found.masks.boxes.tolist() == [[0, 1, 3, 3], [0, 1, 2, 3], [0, 9, 2, 11], [5, 0, 7, 2]]
    assert found.masks.numbers.tolist() == [1, 2, 3, 4]
    assert [cell.shape for cell in found.masks.cells] == [(3, 2), (2, 2), (2, 2), (2, 2)]
    assert (found.hints, found.classes, found.notes) == (("d", "c", "b", "a"), ("D", "C", "B", "A"), ("n",))
    assert Found(masks).sorted().hints == ()
    assert len(Found.none().sorted().masks) == 0


def test_fields_without_marks_are_left_to_the_network_and_say_so(tmp_path, monkeypatch):
    class Network:
        name, key, licence = "learned", "learned-1", ""

        def iter_find(self, image, scale, *, light):
            yield Progress(0, 1, "")
            return Found.none()

    monkeypatch.setattr(module, "get_segmenter", lambda name: Network())
    labels = np.zeros((60, 80), np.uint8)
    labels[5:30, 5:30] = 1
    Image.fromarray(labels).save(tmp_path / "a.png")
    fields = segmenters_of(tmp_path, {"a": Path("/data/a.jpg"), "b": Path("/data/b.jpg")})
    assert {name: (one.name, one.licence) for name, one in fields.items()} == {
        "a": ("labels:a.png", ""),
        "b": ("learned", ""),
    }
    assert fields["b"].key == "learned-1-unmarked"  # another key than without a folder of marks: the note is new
    image = np.full((60, 80, 3), 230, np.uint8)
    light = find_background(image)
    found = {name: drain(one.iter_find(image, Scale(0.1, "user"), light=light)) for name, one in fields.items()}
    assert len(found["a"].masks) == 1
    assert found["a"].notes == ()
    assert "no marks for b.jpg" in found["b"].notes[0]


def test_a_file_of_marks_is_a_segmenter_by_its_path(tmp_path):
    (tmp_path / "a.csv").write_text("x0,y0,x1,y1\n")
    assert get_segmenter(tmp_path / "a.csv").name == "labels:a.csv"
    with pytest.raises(InputError, match="is no file"):
        get_segmenter(str(tmp_path))
    with pytest.raises(InputError, match="no such file or folder of marked cells"):
        get_segmenter(tmp_path / "b.csv")
