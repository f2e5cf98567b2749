"""Every format against files written by hand, and what becomes of bad entries and bad files."""

import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.annotations import ENDINGS, hash_of, read_annotations
from napari_dinobloom.io.annotations import marks as module
from napari_dinobloom.io.annotations.geojson import write_geojson
from napari_dinobloom.io.annotations.polygons import fill
from napari_dinobloom.io.annotations.table import read_table
from napari_dinobloom.io.masks import FieldMasks

SIZE = (60, 80)


def _write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def _boxes(marks):
    return [(mark.name, mark.box) for mark in marks.cells]


# Boxes: CSV


@pytest.mark.parametrize(
    "text",
    [
        "x0,y0,x1,y1,class\n10,20,30,35,blast\n0,0,5,6,\n",
        "# note\nlabel;x;y;width;height\nblast;10;20;20;15\n;0;0;5;6\n",
        "xmin\tymin\txmax\tymax\tname\n10\t20\t30\t35\tblast\n\n0\t0\t5\t6\n",
    ],
)
def test_csv_of_every_kind_gives_the_same_boxes(tmp_path, text):
    marks = read_annotations(_write(tmp_path / "a.csv", text), SIZE)
    assert _boxes(marks) == [("blast", (20, 10, 35, 30)), ("", (0, 0, 6, 5))]
    assert marks.problems == ()


def test_csv_names_bad_lines_and_keeps_the_others(tmp_path):
    path = _write(
        tmp_path / "a.csv",
        "x0,y0,x1,y1\n1,1,1,9\n1,1,x,9\n100,5,120,9\nnan,1,5,5\n2,2,9,9\n70,50,90,58\n",
    )
    marks = read_annotations(path, SIZE)
    assert _boxes(marks) == [("", (2, 2, 9, 9)), ("", (50, 70, 58, 80))]  # the last cut at the border
    assert [problem.split(":")[0] for problem in marks.problems] == [f"a.csv, line {n}" for n in (2, 3, 4, 5)]
    assert "0 x 8 pixels" in marks.problems[0]
    assert "'x'" in marks.problems[1]
    assert "outside the image of 80 x 60" in marks.problems[2]


def test_a_table_of_many_images_is_kept_apart_by_file(tmp_path):
    table = read_table(_write(tmp_path / "a.csv", "file,x0,y0,x1,y1\na.png,1,1,9,9\nb.png,2,2,9,9\na.png,3,3,9,9\n"))
    assert {name: [row[0] for row in rows] for name, rows in table.rows.items()} == {"a.png": [2, 4], "b.png": [3]}
    with pytest.raises(InputError, match="2 images"):
        read_annotations(table.path, SIZE)


def test_a_csv_without_boxes_names_the_columns_it_needs(tmp_path):
    with pytest.raises(InputError, match="columns a, b; needed are x0"):
        read_table(_write(tmp_path / "a.csv", "a,b\n1,2\n"))
    with pytest.raises(InputError, match="is empty"):
        read_table(_write(tmp_path / "b.csv", "# nothing\n"))


# Boxes: VOC

OBJECT = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"


def _voc(path, *objects, size=SIZE):
    head = f"<annotation><size><width>{size[1]}</width><height>{size[0]}</height></size>\n"
    return _write(path, head + "\n".join(OBJECT.format(*values) for values in objects) + "</annotation>")


def test_voc_counts_from_one_and_its_corners_belong_to_the_box(tmp_path):
    marks = read_annotations(_voc(tmp_path / "a.xml", ("WBC", 1, 1, 80, 60), ("RBC", 11, 21, 30, 35)), SIZE)
    assert _boxes(marks) == [("WBC", (0, 0, 60, 80)), ("RBC", (20, 10, 35, 30))]


def test_voc_names_a_degenerate_and_a_broken_object(tmp_path):
    path = _voc(tmp_path / "a.xml", ("RBC", 50, 37, 50, 37), ("WBC", 11, 21, 30, 35), ("WBC", "ten", 2, 9, 9))
    path.write_text(path.read_text().replace("</annotation>", "\n<object><name>WBC</name></object></annotation>"))
    marks = read_annotations(path, SIZE)
    assert _boxes(marks) == [("WBC", (20, 10, 35, 30))]
    assert [problem.split(":")[0] for problem in marks.problems] == [
        "a.xml, object 1 (line 2)",
        "a.xml, object 3 (line 4)",
        "a.xml, object 4 (line 5)",
    ]
    assert "no area" in marks.problems[0]
    assert "<ymin>" in marks.problems[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!DOCTYPE a [<!ENTITY b 'c'>]><annotation/>", "DOCTYPE"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "DOCTYPE"),
        ("<annotation><object>", "no complete XML"),
        ("<annotation>&undeclared;</annotation>", "no complete XML"),
        ("<svg/>", "begins with <svg>"),
        ("<annotation>" + "<a>" * 30 + "</a>" * 30 + "</annotation>", "nested too deeply"),
        ("<annotation><size><width>8</width><height>9</height></size></annotation>", "8 x 9 pixels"),
    ],
)
def test_voc_files_that_are_refused(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        read_annotations(_write(tmp_path / "a.xml", text), SIZE)


# Boxes and outlines: YOLO


def test_yolo_boxes_and_outlines_are_shares_of_the_image(tmp_path):
    _write(tmp_path / "classes.txt", "rbc\nneutrophil\n")
    lines = ["1 0.25 0.5 0.25 0.2", "1 0.25 0.5 0.25 0.2 0.93", "0 0.1 0.1 0.5 0.1 0.5 0.5 0.1 0.5"]
    marks = read_annotations(_write(tmp_path / "a.txt", "\n".join(lines)), SIZE)
    assert _boxes(marks)[:2] == [("neutrophil", (24, 10, 36, 30))] * 2
    assert _boxes(marks)[2] == ("rbc", (6, 8, 30, 40))
    assert marks.cells[2].cell[0][0].tolist() == [[6, 8], [6, 40], [30, 40], [30, 8]]


def test_yolo_names_bad_lines(tmp_path):
    _write(tmp_path / "classes.txt", "wbc\n")
    lines = ["0 1 2 3", "0 .5 .5 x .1", "7 .5 .5 .1 .1", "0 100 200 30 30", "wbc .5 .5 .1 .1", "", "0 .5 .5 .2 .2"]
    lines.append("0 .1 .1 .5 .5 .5 .1 .1 .5")  # a bow tie
    marks = read_annotations(_write(tmp_path / "a.txt", "\n".join(lines)), SIZE)
    assert _boxes(marks) == [("wbc", (24, 32, 36, 48))]
    assert [problem.split(":")[0] for problem in marks.problems] == [f"a.txt, line {n}" for n in (1, 2, 3, 4, 5, 8)]
    assert "crosses itself" in marks.problems[-1]
    assert "only 1 names" in marks.problems[2]


def test_yolo_classes_without_names_are_their_numbers(tmp_path):
    marks = read_annotations(_write(tmp_path / "a.txt", "3 .5 .5 .2 .2\n"), SIZE)
    assert [mark.name for mark in marks.cells] == ["3"]


# Outlines: GeoJSON


def _feature(coordinates, kind="Polygon", **more):
    properties = {"objectType": more.pop("object", "annotation"), **more.pop("properties", {})}
    return {"type": "Feature", "geometry": {"type": kind, "coordinates": coordinates}, "properties": properties, **more}


def _collection(path, *features):
    return _write(path, json.dumps({"type": "FeatureCollection", "features": features}))


SQUARE = [[[10, 20], [30, 20], [30, 40], [10, 40], [10, 20]]]


def test_a_cell_of_qupath_comes_with_its_nucleus_and_class(tmp_path):
    nucleus = {"type": "Polygon", "coordinates": [[[15, 25], [20, 25], [20, 30], [15, 30], [15, 25]]]}
    cell = _feature(
        SQUARE,
        object="cell",
        nucleusGeometry=nucleus,
        properties={"classification": {"name": "Blast", "color": [1, 2, 3]}},
    )
    derived = _feature(SQUARE, object="detection", properties={"classification": {"names": ["Tumor", "Positive"]}})
    region = _feature([[[0, 0], [80, 0], [80, 60], [0, 60], [0, 0]]], object="annotation")
    marks = read_annotations(_collection(tmp_path / "a.geojson", region, cell, derived), SIZE)
    assert _boxes(marks) == [("Blast", (20, 10, 40, 30)), ("Tumor: Positive", (20, 10, 40, 30))]
    assert fill(marks.cells[0].cell, (0, 0, *SIZE)).sum() == 400
    assert fill(marks.cells[0].nucleus, (0, 0, *SIZE)).sum() == 25


def test_annotations_are_cells_where_there_are_no_others_and_holes_stay_holes(tmp_path):
    hole = [[15, 25], [20, 25], [20, 30], [15, 30], [15, 25]]
    other = [[[50, 5], [60, 5], [60, 15], [50, 15], [50, 5]]]
    single = _feature([SQUARE[0], hole])
    several = _feature([SQUARE, other], kind="MultiPolygon")
    path = _write(tmp_path / "a.json", json.dumps([single, several]))
    marks = read_annotations(path, SIZE)
    assert [int(fill(mark.cell, (0, 0, *SIZE)).sum()) for mark in marks.cells] == [375, 500]
    assert marks.cells[1].box == (5, 10, 40, 60)


def test_geojson_names_bad_features_and_keeps_the_others(tmp_path):
    bow = [[[10, 20], [30, 40], [30, 20], [10, 40], [10, 20]]]
    away = [[[500, 20], [530, 20], [530, 40], [500, 20]]]
    features = [
        _feature([5, 5], kind="Point"),
        _feature(bow),
        _feature(away),
        _feature([[[1, 1], [2, 2]]]),
        _feature([[["a", "b"], ["c", "d"], ["e", "f"]]]),
        _feature([[[1, 1], [2]]]),
        _feature([[[1e400, 1], [20, 1], [20, 20]]]),
        {"type": "Feature", "geometry": None},
        "feature",
        _feature(SQUARE, properties={"classification": {"name": "line\nbreak"}}),
        _feature(SQUARE),
    ]
    marks = read_annotations(_collection(tmp_path / "a.geojson", *features), SIZE)
    assert _boxes(marks) == [("", (20, 10, 40, 30))]
    assert [problem.split(":")[0] for problem in marks.problems] == [f"a.geojson, feature {n}" for n in range(1, 11)]
    assert "is a Point" in marks.problems[0]
    assert "crosses itself near" in marks.problems[1]


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "3", '{"type": "FeatureCollection"}'])
def test_geojson_that_is_none(tmp_path, text):
    with pytest.raises(InputError, match="GeoJSON"):
        read_annotations(_write(tmp_path / "a.geojson", text), SIZE)


def test_what_is_written_for_qupath_reads_back_pixel_for_pixel(tmp_path):
    rng = np.random.default_rng(3)
    labels = np.zeros(SIZE, np.int32)
    for number in range(1, 6):
        y, x = 10 * number - 4, 12 * number
        labels[y : y + 12, x : x + 14][rng.random((12, 14)) < 0.6] = number  # ragged, with holes and loose pieces
    nuclei = np.where(rng.random(SIZE) < 0.5, labels, 0)
    nuclei[labels == 4] = 0
    masks = FieldMasks.from_labels(labels, nuclei)
    write_geojson(
        tmp_path / "a.geojson",
        masks,
        names=[f"a:{n:05d}" for n in range(1, 6)],
        classes=["blast", "", "=x", "blast", "née"],
        colours={"blast": "#ee3377"},
        measurements=[{"area": 3.5, "focus": np.nan}] * 5,
    )
    marks = read_annotations(tmp_path / "a.geojson", SIZE)
    assert [mark.name for mark in marks.cells] == ["blast", "", "=x", "blast", "née"]
    for number, mark in enumerate(marks.cells, start=1):
        assert np.array_equal(fill(mark.cell, (0, 0, *SIZE)), labels == number)
        assert np.array_equal(fill(mark.nucleus, (0, 0, *SIZE)), nuclei == number)
    first = json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))["features"][0]
    assert first["properties"]["classification"] == {"name": "blast", "color": [0xEE, 0x33, 0x77]}
    assert first["properties"]["measurements"] == {"area": 3.5}
    assert "nucleusGeometry" not in json.loads((tmp_path / "a.geojson").read_text(encoding="utf-8"))["features"][3]


# Label pictures


def _labels(kind):
    labels = np.zeros(SIZE, np.int64)
    labels[5:20, 5:20], labels[5:20, 20:40], labels[30:50, 10:30] = 7, 3, 900
    return labels.astype(kind)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.png", np.uint16), ("a.tif", np.uint32), ("a.tiff", np.int32), ("b.tif", np.float32), ("a.npy", np.int64)],
)
def test_values_are_cells_in_every_format(tmp_path, name, kind):
    labels = _labels(kind)
    path = tmp_path / name
    if name.endswith(".png"):
        Image.fromarray(labels).save(path)
    elif name.endswith(".npy"):
        np.save(path, labels)
    else:
        tifffile.imwrite(path, labels)
    marks = read_annotations(path, SIZE)
    assert marks.nuclei is None
    assert marks.labels is not None
    for number, value in enumerate((3, 7, 900), start=1):
        assert np.array_equal(marks.labels == number, labels == value)


def test_a_mask_falls_into_its_pieces_and_specks_are_named(tmp_path):
    mask = np.zeros(SIZE, np.uint8)
    mask[5:20, 5:20] = mask[20:30, 20:30] = 255  # meet at a corner: one cell
    mask[40:50, 40:60] = 255
    mask[0, 79] = 255
    Image.fromarray(mask).save(tmp_path / "a.png")
    marks = read_annotations(tmp_path / "a.png", SIZE)
    assert marks.labels is not None
    assert np.unique(marks.labels, return_counts=True)[1].tolist()[1:] == [325, 200]
    assert len(marks.problems) == 1
    assert "1 piece(s)" in marks.problems[0]


@pytest.mark.parametrize(("cytoplasm", "nucleus"), [(1, 2), (128, 255)])
def test_parts_are_cytoplasm_and_nucleus(tmp_path, cytoplasm, nucleus):
    parts = np.zeros(SIZE, np.uint8)
    parts[5:25, 5:25], parts[10:20, 10:25] = cytoplasm, nucleus  # the nucleus reaches the border of its cell
    parts[30:50, 40:60], parts[35:40, 45:50] = cytoplasm, nucleus
    tifffile.imwrite(tmp_path / "a.tif", parts)
    marks = read_annotations(tmp_path / "a.tif", SIZE)
    assert marks.labels is not None
    assert marks.nuclei is not None
    assert np.array_equal(marks.labels > 0, parts > 0)
    assert np.array_equal(marks.nuclei > 0, parts == nucleus)
    assert np.unique(marks.nuclei, return_counts=True)[1].tolist()[1:] == [150, 25]


def test_two_cells_that_touch_are_no_cytoplasm_and_nucleus(tmp_path):
    labels = np.zeros(SIZE, np.uint8)
    labels[5:25, 5:25], labels[5:25, 25:45] = 1, 2
    Image.fromarray(labels).save(tmp_path / "a.png")
    marks = read_annotations(tmp_path / "a.png", SIZE)
    assert marks.nuclei is None
    assert np.array_equal(marks.labels, labels)


def test_label_pictures_that_are_refused(tmp_path):
    rgb = np.zeros((*SIZE, 3), np.uint8)
    rgb[5:9, 5:9, 1] = 200
    Image.fromarray(rgb).save(tmp_path / "colour.png")
    Image.fromarray(np.zeros((60, 81), np.uint8)).save(tmp_path / "size.png")
    tifffile.imwrite(tmp_path / "half.tif", np.full(SIZE, 0.5, np.float32))
    tifffile.imwrite(tmp_path / "minus.tif", np.full(SIZE, -1, np.int16))
    tifffile.imwrite(tmp_path / "stack.tif", np.zeros((*SIZE, 9), np.uint8), photometric="minisblack")
    np.save(tmp_path / "object.npy", np.array([[None]]), allow_pickle=True)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n")
    for name, message in {
        "colour.png": "is a colour picture",
        "size.png": "81 x 60 pixels, its image 80 x 60",
        "half.tif": "fractions",
        "minus.tif": "negative",
        "stack.tif": "is a stack",
        "object.npy": "damaged or no label picture",
        "broken.png": "damaged or no label picture",
        "absent.png": "damaged or no label picture",
    }.items():
        with pytest.raises(InputError, match=message):
            read_annotations(tmp_path / name, SIZE)


def test_grey_saved_as_colour_and_indexed_pictures_are_read(tmp_path):
    labels = _labels(np.int64) % 256
    Image.fromarray(labels.astype(np.uint8)).convert("RGB").save(tmp_path / "grey.png")
    indexed = Image.fromarray(labels.astype(np.uint8), mode="P")
    indexed.putpalette(list(range(255, -1, -1)) * 3)
    indexed.save(tmp_path / "indexed.png")
    for name in ("grey.png", "indexed.png"):
        marks = read_annotations(tmp_path / name, SIZE)
        assert marks.labels is not None
        assert np.array_equal(marks.labels > 0, labels > 0)
        assert marks.labels.max() == 3


# Limits


def test_files_and_lists_without_end_are_refused(tmp_path, monkeypatch):
    path = _write(tmp_path / "a.txt", "0 .5 .5 .1 .1\n" * 30)
    monkeypatch.setattr(module, "MAX_ENTRIES", 20)
    with pytest.raises(InputError, match="more than 20 entries"):
        read_annotations(path, SIZE)
    monkeypatch.setattr(module, "MAX_BYTES", 100)
    with pytest.raises(InputError, match="420 bytes"):
        read_annotations(path, SIZE)


def test_an_ending_that_nobody_knows_names_those_that_are_known(tmp_path):
    with pytest.raises(InputError, match=r"\.geojson"):
        read_annotations(tmp_path / "a.doc", SIZE)
    assert set(ENDINGS) == {".csv", ".geojson", ".json", ".npy", ".png", ".tif", ".tiff", ".txt", ".xml"}


def test_text_that_is_no_utf8_is_named(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"x0,y0,x1,y1,class\n1,1,9,9,\xff\n")
    with pytest.raises(InputError, match=r"a\.csv: cannot be read as UTF-8"):
        read_annotations(tmp_path / "a.csv", SIZE)


def test_the_hash_follows_the_file_and_the_names_of_classes(tmp_path):
    path = _write(tmp_path / "a.txt", "0 .5 .5 .1 .1\n")
    bare = hash_of(path)
    _write(tmp_path / "classes.txt", "wbc\n")
    named = hash_of(path)
    _write(path, "0 .5 .5 .1 .2\n")
    assert len({bare, named, hash_of(path)}) == 3
