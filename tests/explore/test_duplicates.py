from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from napari_dinobloom.explore.duplicates import find_duplicates

SIDE = 360
DIAMETER = 44


@lru_cache
def slide(seed: int, cells: int = 24) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One large synthetic picture (900 x 900) with its cells' centres (n, 2) and kinds (n, 6)."""
    from scipy.ndimage import gaussian_filter

    random = np.random.default_rng(seed)
    picture = np.full((900, 900), 220.0)
    for y, x in random.uniform(0, 900, (300, 2)):
        _disc(picture, y, x, 13, 170)
    centres: list[np.ndarray] = []
    while len(centres) < cells:
        at = random.uniform(30, 870, 2)
        if all(np.hypot(*(at - other)) > 1.2 * DIAMETER for other in centres):
            centres.append(at)
    kinds = random.normal(size=(cells, 6))
    for (y, x), kind in zip(centres, kinds, strict=True):
        _disc(picture, y, x, DIAMETER / 2, 140)
        for lobe in range(3):
            off = 9 * kind[2 * lobe : 2 * lobe + 2].clip(-1, 1)
            _disc(picture, y + off[0], x + off[1], 9, 60)
    grey = gaussian_filter(picture, 1)
    return np.repeat(grey[..., None], 3, axis=2), np.array(centres), kinds


def _disc(picture: np.ndarray, y: float, x: float, radius: float, grey: float) -> None:
    top, left = max(int(y - radius) - 1, 0), max(int(x - radius) - 1, 0)
    part = picture[top : int(y + radius) + 2, left : int(x + radius) + 2]
    rows, columns = np.ogrid[: part.shape[0], : part.shape[1]]
    part[np.square(rows + top - y) + np.square(columns + left - x) < radius**2] = grey


class Fields:
    """Windows cut from slides, each with its own noise and brightness, and the table of their cells."""

    def __init__(self) -> None:
        self.pictures: dict[str, np.ndarray] = {}
        self.rows: list[dict] = []
        self.x: list[np.ndarray] = []
        self.truth: list[tuple[int, int]] = []
        self.random = np.random.default_rng(99)

    def cut(self, name: str, source: int, made: tuple, top: int, left: int, slide_name: str = "s1") -> None:
        picture, centres, kinds = made
        window = picture[top : top + SIDE, left : left + SIDE] * self.random.uniform(0.9, 1.1)
        noisy = window + self.random.normal(0, 3, window.shape)
        self.pictures[name] = noisy.clip(0, 255).astype(np.uint8)
        half = DIAMETER / 2
        for number, (y, x) in enumerate(centres - (top, left)):
            if not (0 < y < SIDE and 0 < x < SIDE):
                continue
            box = np.array([y - half, x - half, y + half, x + half]).clip(0, SIDE)
            jitter = self.random.normal(0, 1, 2)
            row = {"field": name, "slide": slide_name, "y": y + jitter[0], "x": x + jitter[1]}
            row |= dict(zip(("y0", "x0", "y1", "x1"), box.round(), strict=True))
            row["touches_border"] = bool(min(box[:2]) <= 0 or max(box[2:]) >= SIDE)
            self.rows.append(row)
            self.x.append(kinds[number] + self.random.normal(0, 0.05, 6))
            self.truth.append((source, number))

    def table(self) -> pd.DataFrame:
        return pd.DataFrame(self.rows, index=[f"{r['field']}:{i:05d}" for i, r in enumerate(self.rows)])

    def thumbnail(self, field: str) -> tuple[np.ndarray, float]:
        """Half the size: 22 pixels a cell."""
        picture = self.pictures[field]
        return picture.reshape(SIDE // 2, 2, SIDE // 2, 2, 3).mean((1, 3)).astype(np.uint8), 2.0

    def found(self) -> pd.Series:
        return find_duplicates(self.table(), np.array(self.x), self.thumbnail)

    def wanted(self) -> list[str]:
        table, first = self.table(), {}
        for i, cell in sorted(enumerate(self.truth), key=lambda pair: (self.rows[pair[0]]["touches_border"], pair[0])):
            first.setdefault(cell, i)
        return ["" if first[cell] == i else table.index[first[cell]] for i, cell in enumerate(self.truth)]


def test_every_cell_of_a_strip_of_overlapping_windows_counts_once() -> None:
    fields, made = Fields(), slide(0, cells=60)
    for number, (top, left) in enumerate([(0, 0), (7, 251), (10, 511), (263, 4), (255, 260), (540, 540)]):
        fields.cut(f"f{number}", 0, made, top, left)
    found = fields.found()
    assert found.name == "duplicate_of"
    assert list(found.index) == list(fields.table().index)
    assert found.tolist() == fields.wanted()
    assert (found != "").sum() >= 8


def test_alike_cells_of_other_places_are_not_duplicates() -> None:
    """The same kinds of cells at other places, in other fields of one slide."""
    fields = Fields()
    for number in range(6):
        picture, centres, _ = slide(10 + number)
        fields.cut(f"f{number}", number, (picture, centres, slide(1)[2]), 100, 100)
    assert (fields.found() == "").all()


def test_a_copy_of_a_field_is_a_duplicate_as_a_whole_but_not_on_another_slide() -> None:
    fields, made = Fields(), slide(2)
    fields.cut("a", 0, made, 100, 100)
    fields.cut("b", 0, made, 100, 100)
    count = len(fields.rows) // 2
    fields.cut("c", 0, made, 100, 100, slide_name="s2")
    table, found = fields.table(), fields.found()
    assert found.iloc[count : 2 * count].tolist() == table.index[:count].tolist()
    assert (found.iloc[:count] == "").all()
    assert (found.iloc[2 * count :] == "").all()


def test_a_cell_cut_by_the_first_fields_border_counts_in_the_second() -> None:
    fields, (picture, _, kinds) = Fields(), slide(3)
    picture = picture.copy()
    centres = np.array([[180.0, 350.0], [100.0, 300.0]])
    for (y, x), kind in zip(centres, kinds, strict=False):
        picture[int(y) - 20 : int(y) + 20, int(x) - 20 : int(x) + 20] = 100 + 30 * kind[0]
    fields.cut("a", 0, (picture, centres, kinds), 0, 0)
    fields.cut("b", 0, (picture, centres, kinds), 0, 180)
    table, found = fields.table(), fields.found()
    assert table["touches_border"].tolist() == [True, False, False, False]
    assert found.tolist() == [table.index[2], "", "", table.index[1]]


def test_deleted_and_unembedded_cells_are_left_out() -> None:
    fields, made = Fields(), slide(2)
    fields.cut("a", 0, made, 100, 100)
    fields.cut("b", 0, made, 100, 100)
    table, x = fields.table(), np.array(fields.x)
    count = len(table) // 2
    table["deleted"] = np.arange(len(table)) == 0
    x[count + 1] = np.nan
    found = find_duplicates(table, x, fields.thumbnail)
    assert found.iloc[count] == ""
    assert found.iloc[count + 2] == table.index[2]


def test_one_field_none_and_wrong_lengths() -> None:
    fields = Fields()
    fields.cut("a", 0, slide(2), 100, 100)
    assert (fields.found() == "").all()
    empty = fields.table().iloc[:0]
    assert len(find_duplicates(empty, np.zeros((0, 6)), fields.thumbnail)) == 0
    with pytest.raises(ValueError, match="rows"):
        find_duplicates(fields.table(), np.zeros((1, 6)), fields.thumbnail)


def _stained(picture: np.ndarray) -> list[tuple[int, int, int, int]]:
    """Boxes of the dark violet blobs of a BCCD field, by a crude rule of this test alone."""
    from scipy import ndimage

    rgb = picture.astype(int)
    dark = ndimage.binary_opening((rgb[..., 2] - rgb[..., 1] > 45) & (rgb[..., 1] < 130), iterations=3)
    marks, _ = ndimage.label(ndimage.binary_dilation(dark, iterations=6))
    boxes = [(s[0].start, s[1].start, s[0].stop, s[1].stop) for s in ndimage.find_objects(marks)]
    return [b for b in boxes if 40 < b[2] - b[0] < 260 and 40 < b[3] - b[1] < 260]


def _bccd(
    folder: Path, step: int, windows: list[tuple[int, int]], numbers: range = range(9999)
) -> tuple[pd.DataFrame, np.ndarray, dict]:
    """Windows (left, right) of every `step`-th BCCD field, their blobs, and 16 x 16 pixels of each as embedding."""
    from PIL import Image

    rows, x, pictures = [], [], {}
    for path in [p for p in sorted(folder.glob("*.jpg")) if int(p.stem[-5:]) in numbers][::step]:
        whole = np.asarray(Image.open(path).convert("RGB"))
        for part, (left, right) in enumerate(windows):
            field = f"{path.stem}-{part}"
            picture = whole[:, left:right]
            small = Image.fromarray(picture).resize((-(-picture.shape[1] // 4), 120), Image.Resampling.BOX)
            pictures[field] = (np.asarray(small), 4.0)
            for y0, x0, y1, x1 in _stained(picture):
                y, x_ = (y0 + y1) // 2, (x0 + x1) // 2
                padded = np.pad(picture, ((64, 64), (64, 64), (0, 0)), mode="reflect")[y : y + 128, x_ : x_ + 128]
                x.append(np.asarray(Image.fromarray(padded).resize((16, 16)), float).ravel())
                border = y0 == 0 or x0 == 0 or y1 == 480 or x1 == picture.shape[1]
                rows.append([field, "s", y, x_, y0, x0, y1, x1, border])
    columns = ["field", "slide", "y", "x", "y0", "x0", "y1", "x1", "touches_border"]
    return pd.DataFrame(rows, columns=columns, index=[f"c{i}" for i in range(len(rows))]), np.array(x), pictures


@pytest.mark.real_data
def test_real_fields_that_overlap_are_found_and_no_others(real_data: Path) -> None:
    """In BCCD some fields were taken twice; all pairs named here were looked at, and show the same cells."""
    table, x, pictures = _bccd(real_data / "bccd" / "images", 1, [(0, 640)], range(220, 262))
    found = find_duplicates(table, x, pictures.__getitem__)
    copies = found[found != ""]
    number = table["field"].str[11:16].astype(int)
    pairs = set(zip(number[copies].to_numpy(), number[copies.index].to_numpy(), strict=True))
    assert pairs == {
        (226, 261),
        (227, 260),
        (229, 258),
        (230, 257),
        (231, 256),
        (233, 254),
        (243, 250),
        (244, 247),
        (248, 249),
    }


@pytest.mark.real_data
def test_overlapping_halves_of_real_fields_share_their_cells(real_data: Path) -> None:
    table, x, pictures = _bccd(real_data / "bccd" / "images", 12, [(0, 450), (260, 640)], range(0, 200))
    found = find_duplicates(table, x, pictures.__getitem__)
    copies = found[found != ""]
    stems = table["field"].str[:-2]
    assert len(copies) >= 6
    assert (stems[copies.index].to_numpy() == stems[copies].to_numpy()).all()
