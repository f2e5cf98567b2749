"""The report is read back with html.parser: what a reader would see, and what a browser would fetch."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from napari_dinobloom.cells.taxonomy import describe
from napari_dinobloom.errors import StudyError
from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.io.masks import FieldMasks
from napari_dinobloom.report.budget import MAX_WIDTH, Budget
from napari_dinobloom.report.differential import differential, summary
from napari_dinobloom.report.figures import DOTS_AS_VECTORS, bar_figure, map_figure
from napari_dinobloom.report.gallery import SHOWN, iter_galleries
from napari_dinobloom.report.html import iter_write_report, write_report
from napari_dinobloom.report.legend import Legend
from napari_dinobloom.report.sightings import sightings

HOSTILE = '<script>alert("x")</script>'
CLASSES = ("neutrophil_segmented", "eosinophil", "lymphocyte", "erythroblast", "platelet")
VOID = {"meta", "br", "img", "input", "link", "hr"}


@dataclass
class SmallStudy:
    """What a report reads of a study, held in memory; `lost` fields have no image any more."""

    fields: list[FieldRecord]
    cells: anndata.AnnData
    name: str = "Small"
    specimen: str = "blood"
    palette: dict[str, str] = field(default_factory=dict)
    lost: frozenset[str] = frozenset()

    def read_field(self, field_id: str) -> SimpleNamespace:
        if field_id in self.lost:
            raise StudyError(f"{field_id}: not found; give its folder again")
        return SimpleNamespace(image=np.full((90, 120, 3), 200, np.uint8))

    def masks(self, field_id: str) -> FieldMasks:
        obs = self.cells.obs[self.cells.obs["field"] == field_id]
        boxes = obs[["y0", "x0", "y1", "x1"]].to_numpy(np.int32)
        disc = np.hypot(*(np.mgrid[:16, :16] - 7.5)) < 8
        numbers = np.array([int(i.rpartition(":")[2]) for i in obs.index], np.int32)
        return FieldMasks(boxes, numbers, [disc] * len(obs), [disc] * len(obs))


def small_study(fields: int = 3, per_field: int = 6, slide: str = "slide A") -> SmallStudy:
    records = [
        FieldRecord(id=f"f{i}", file=f"in/f{i}.png", height=90, width=120, slide=slide, patient="P1")
        for i in range(fields)
    ]
    records.append(FieldRecord(id="bad", file="in/bad.png", slide=slide, patient="P1", status="failed", problem="torn"))
    records.append(FieldRecord(id="twin", file="in/t.png", slide=slide, patient="P1", status="same_as", problem="f0"))
    rng = np.random.default_rng(7)
    rows = []
    for i in range(fields * per_field):
        at, number = divmod(i, per_field)
        y, x = 4 + 20 * (number % 3), 4 + 30 * (number // 3)
        rows.append(
            {
                "cell_id": f"f{at}:{number + 1:05d}",
                "field": f"f{at}",
                "slide": slide,
                "patient": "P1",
                "y0": y,
                "x0": x,
                "y1": y + 16,
                "x1": x + 16,
                "predicted": CLASSES[i % len(CLASSES)],
                "confidence": float(rng.uniform(0.5, 1)),
                "abstained": i == 3,
                "distance": 1.0 + i,
                "label": "",
                "reviewed": False,
                "excluded": i == 4,
                "deleted": False,
                "touches_border": i == 5,
                "quality": "ok",
                "duplicate_of": "",
                "scale_from": "red cells",
            }
        )
    columns = ["cell_id", "field", "slide", "patient", "predicted", "label"]
    obs = pd.DataFrame(rows) if rows else pd.DataFrame({name: pd.Series(dtype=object) for name in columns})
    obs.index = pd.Index(obs["cell_id"].astype(str), name=None)
    xy = rng.normal(size=(len(obs), 2))
    adata = anndata.AnnData(X=np.zeros((len(obs), 4), np.float32), obs=obs, obsm={"X_umap": xy})
    return SmallStudy(records, adata)


def written(study: SmallStudy, folder: Path, **options: Any) -> str:
    counts, totals = differential(study.cells), summary(study.cells)
    atlas = {"name": "tiny", "classes": list(CLASSES), "distance_limit": 5.0}
    options = {"atlas_info": atlas, "created": "today", **options}
    path = write_report(study, folder / "report.html", differential=counts, summary=totals, **options)
    return path.read_text(encoding="utf-8")


class Page(HTMLParser):
    """Checks that elements close in order, and collects what tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.texts.append(data)

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.tags if t == tag and all(a.get(k) == v for k, v in wanted.items())]

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Page:
    study = small_study()
    crops = np.random.default_rng(0).integers(0, 255, (study.cells.n_obs, 224, 224, 3), dtype=np.uint8)
    return Page(written(study, tmp_path_factory.mktemp("report"), crops=crops, problems=[("notes.txt", "no image")]))


def test_nothing_is_fetched_from_outside(page: Page) -> None:
    places = [value or "" for _, attrs in page.tags for name, value in attrs.items() if name in ("href", "src")]
    assert places
    assert all(place.startswith(("#", "data:")) for place in places)
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert "default-src 'none'" in str(policy)


def test_every_link_into_the_page_leads_somewhere(page: Page) -> None:
    ids = [attrs["id"] for _, attrs in page.tags if attrs.get("id")]
    links = {str(attrs["href"])[1:] for tag, attrs in page.tags if tag in ("a", "use") and attrs.get("href")}
    assert len(ids) == len(set(ids))
    assert links <= set(ids)


def test_every_cell_is_outlined_once_and_told(page: Page) -> None:
    polygons = page.all("polygon")
    assert len(polygons) == 18
    dashed = [p for p in polygons if " out" in str(p["class"])]
    # excluded and touching the border; and the two other platelets: erythroblasts are given per 100, the third
    # platelet is the excluded cell, and the abstained cell counts as unclassified
    assert len(dashed) == 2 + 2
    for cell_id in ("f0:00001", "f2:00006"):
        assert cell_id in page.text
    assert "nearest to Erythroblast" in page.text
    assert "not counted: excluded by a person" in page.text
    assert "not counted: cut off by the border of the field" in page.text


def test_polygons_lie_on_their_cells(page: Page) -> None:
    first = next(p for p in page.all("polygon") if p["id"] == "c0")
    points = np.array([pair.split(",") for pair in str(first["points"]).split()], dtype=float)
    assert len(points) > 7
    np.testing.assert_allclose(points.min(axis=0), [4, 4], atol=0.5)
    np.testing.assert_allclose(points.max(axis=0), [20, 20], atol=0.5)


def test_every_field_class_and_caution_is_told(page: Page) -> None:
    for field_id in ("f0", "f1", "f2", "bad", "twin"):
        assert field_id in page.texts
    for name in CLASSES:
        assert describe(name).title in page.text
    assert page.text.lower().count("research use, not for diagnosis") >= 3
    for words in ("blast, atypical lymphocyte, plasma cell", "counting error only", "in/bad.png : torn"):
        assert words in page.text
    assert "notes.txt : no image" in page.text
    assert "The same picture as f0" in page.text
    assert "Fewer than 100 cells counted for 1 patient" in page.text
    assert "beyond the distance limit" in page.text


def test_what_was_odd_about_a_field_that_is_used_is_told(tmp_path: Path) -> None:
    study = small_study(2, 3)
    study.fields[1] = replace(study.fields[1], problem="f1.csv, line 2: the box has no area.")
    told = Page(written(study, tmp_path)).text
    assert "1 field with a note" in told
    assert "in/f1.png : f1.csv, line 2: the box has no area." in told
    assert "with a note" not in Page(written(small_study(2, 3), tmp_path)).text


def test_pictures_have_words(page: Page) -> None:
    pictures = page.all("img")
    assert len(pictures) == 3 + 18  # fields, and a crop for every cell since no class has more than the gallery shows
    assert all(picture["alt"] for picture in pictures)


def test_text_from_files_stays_text(tmp_path: Path) -> None:
    study = small_study(1, 6, slide=HOSTILE)
    study.name = HOSTILE
    study.palette = {"lymphocyte": "red}body{display:none", "eosinophil": "#123456"}
    study.cells.obs.loc["f0:00001", "label"] = "<img src=http://example.org/x>"
    study.fields.append(
        FieldRecord(id="z", file=f"a/{HOSTILE}\udcff.png", slide="s", patient=HOSTILE, status="failed", problem=HOSTILE)
    )
    text = written(study, tmp_path, settings={HOSTILE: {"deep": HOSTILE}})
    page = Page(text)
    assert len(page.all("script")) == 1
    assert len(page.all("img", src="http://example.org/x")) == 0
    assert HOSTILE in "".join(page.texts)
    assert "display:none}" not in text
    assert "--c:#123456" in text
    assert describe("lymphocyte").colour in text


def test_an_empty_study_and_a_lost_field(tmp_path: Path) -> None:
    empty = small_study(2, 0)
    page = Page(written(empty, tmp_path, atlas_info={}))
    assert page.all("polygon") == []
    assert "No cell was counted" in page.text
    assert "There are no cells" in page.text

    lost = small_study(1, 6)
    lost.lost = frozenset({"f0"})
    del lost.cells.obsm["X_umap"]
    page = Page(written(lost, tmp_path))
    assert "f0: not found; give its folder again" in page.text
    assert len(page.all("polygon")) == 6
    assert "no crop kept" in page.text
    assert "No map" in page.text


def test_a_cancelled_report_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    study = small_study()
    counts, totals = differential(study.cells), summary(study.cells)
    steps = iter_write_report(study, path, differential=counts, summary=totals)
    seen = [next(steps) for _ in range(3)]
    steps.close()
    assert [p.done for p in seen] == [0, 1, 2]
    assert {p.total for p in seen} == {5}
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("fields", [10, 364, 5_000, 50_000])
def test_the_budget_holds_whatever_the_number_of_fields(fields: int) -> None:
    budget = Budget(bytes_left=50e6, fields_left=fields)
    spent, widths = 0, []
    for _ in range(fields):
        width = budget.width_for(2048, 1536)
        pixels = width * round(width * 0.75)
        size = int(0.31 * pixels)  # worse than the budget believes at first
        budget.spend(size, pixels)
        spent += size
        widths.append(width)
    assert spent <= 51e6
    assert max(widths) <= MAX_WIDTH
    assert min(widths) > 0 or fields == 50_000
    if fields == 10:
        assert set(widths) == {MAX_WIDTH}


def test_galleries_go_from_sure_to_doubtful_and_keep_both_ends() -> None:
    study = small_study(10, 15)
    study.cells.obs["predicted"] = "lymphocyte"
    cells = sightings(study.cells.obs, "blood")
    legend = Legend({*cells["shown"], *cells["nearest"]} - {""}, {})
    first = next(iter(iter_galleries(cells, None, legend)))
    shown = [p.confidence for p in first.portraits if p.confidence is not None]
    counted = cells.loc[(cells["reason"] == "") & (cells["shown"] == "lymphocyte"), "confidence"]
    assert first.total == len(counted)
    assert len(shown) == SHOWN
    assert shown == sorted(shown, reverse=True)
    assert (shown[0], shown[-1]) == (counted.max(), counted.min())


def test_bars_are_in_order_and_to_scale() -> None:
    study = small_study()
    counts = differential(study.cells)
    rows = counts[(counts["level"] == "patient") & counts["in_denominator"]]
    figure = bar_figure(rows, Legend(counts["class"], {}))
    assert [bar.n for bar in figure.bars[:-1]] == sorted((bar.n for bar in figure.bars[:-1]), reverse=True)
    assert figure.bars[-1].entry.name == "unclassified"
    end = figure.ticks[-1][0] / figure.ticks[-1][1] * 100
    for bar in figure.bars:
        assert bar.length == pytest.approx(bar.percent / end * 100, abs=0.01)
        assert bar.low <= bar.length <= bar.high <= 100


@pytest.mark.parametrize("n", [1, 300, DOTS_AS_VECTORS + 2])
def test_the_map_keeps_every_cell_in_its_frame(n: int) -> None:
    rng = np.random.default_rng(1)
    xy = rng.normal(size=(n, 2)) * (5, 1)
    shown = pd.Series(rng.choice(CLASSES, n))
    xy[0] = np.nan if n > 1 else xy[0]
    figure = map_figure(xy, shown, Legend(CLASSES, {}))
    assert sum(layer.n for layer in figure.layers) + figure.missing == n
    assert figure.missing == (n > 1)
    if n > DOTS_AS_VECTORS:
        assert all(layer.picture.startswith("data:image/png") and not layer.path for layer in figure.layers)
        return
    placed = np.array(re.findall(r"M([\d.-]+) ([\d.-]+)h0", "".join(layer.path for layer in figure.layers)), float)
    assert len(placed) == n - figure.missing
    assert (placed >= 0).all()
    assert (placed <= [figure.width, figure.height]).all()


def test_light_colours_are_told_from_dark_ones() -> None:
    light = {
        entry.name
        for entry in Legend(["unclassified", "platelet", "smudge_cell", "basophil"], {}).entries
        if entry.light
    }
    assert light == {"unclassified", "platelet", "smudge_cell"}
