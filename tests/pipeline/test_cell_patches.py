"""Patches of a few cells of a study: tokens of its encoder, colours that stay, places on the field."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import napari_dinobloom as nd
from napari_dinobloom.encoders.overlay import paint
from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline.cell_patches import basis_file, field_tiles, iter_cell_patches
from napari_dinobloom.pipeline.crops import open_crops
from napari_dinobloom.pipeline.driver import iter_outcome
from napari_dinobloom.pipeline.stains import iter_find_stains
from napari_dinobloom.progress import drain


def test_tokens_are_the_encoders_and_colours_stay(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Study.open(copied) as study:
        cells = [str(cell) for cell in study.cells.obs_names[:6]]
        crops = np.asarray(open_crops(study)[:6])
        first = drain(iter_cell_patches(study, cells[:4], crops[:4], foreground="centre"))
        with nd.load_encoder("starter") as encoder:
            np.testing.assert_allclose(first.tokens, encoder.patch_tokens(crops[:4]), atol=1e-4)
            assert basis_file(study, encoder.sha256, "centre").is_file()
        assert (first.colours == 0).all(axis=-1).any(), "the background is black"
        assert first.basis.cells == 4

        second = drain(iter_cell_patches(study, cells[2:], crops[2:], foreground="centre"))
        np.testing.assert_allclose(second.colours[:2], first.colours[2:], atol=1e-3)
        np.testing.assert_array_equal(second.basis.axes, first.basis.axes)

        asked = []
        real = nd.encoders.encoder.Encoder.patch_tokens
        monkeypatch.setattr(
            nd.encoders.encoder.Encoder,
            "patch_tokens",
            lambda self, pictures: asked.append(len(pictures)) or real(self, pictures),
        )
        changed = crops[2:].copy()
        changed[1] = 255 - changed[1]
        drain(iter_cell_patches(study, cells[2:], changed, foreground="centre", known=first))
        assert sum(asked) == 3, "one is known, one has another picture, two are new"
        anew = drain(iter_cell_patches(study, cells[2:], crops[2:], foreground="centre", anew=True))
        assert not np.array_equal(anew.basis.axes, first.basis.axes)


def test_a_study_that_is_only_read_is_not_written(copied: Path) -> None:
    with Study.open(copied, read_only=True) as study:
        cells = [str(cell) for cell in study.cells.obs_names[:3]]
        crops = np.asarray(open_crops(study)[:3])
        first = drain(iter_cell_patches(study, cells, crops))
        assert not list((copied / "models").glob("patch-colours*"))
        again = drain(iter_cell_patches(study, cells[:1], crops[:1], known=first))
        np.testing.assert_array_equal(again.colours[0], first.colours[0])


def test_tiles_cover_the_cells_and_nothing_else(finished: Path) -> None:
    with Study.open(finished, read_only=True) as study:
        field = study.fields[0].id
        obs = study.cells.obs
        cells = [str(cell) for cell in obs.index[obs["field"] == field]]
        labels = study.labels(field)
        values = np.linspace(0.2, 1, len(cells), dtype=np.float32)[:, None, None, None] * np.ones((1, 4, 4, 3))
        others = [str(cell) for cell in obs.index[obs["field"] != field][:2]]
        tiles = field_tiles(
            study, field, [*others, *cells], np.concatenate([values[:2] * 0, values]).astype(np.float32)
        )
        canvas = paint(tiles, np.zeros((*labels.shape, 4), np.uint8))
        covered = canvas[..., 3] > 0
        assert covered.sum() > 0.8 * (labels > 0).sum()
        assert not covered[labels == 0].any()
        for number, cell in enumerate(cells):
            own = (labels == int(cell.rpartition(":")[2])) & covered
            shown = np.median(canvas[own][:, 0])
            assert shown == pytest.approx(255 * values[number, 0, 0, 0], abs=1)


def test_tokens_of_a_recoloured_study_are_those_of_recoloured_crops(copied: Path) -> None:
    with Study.open(copied) as study:
        drain(iter_outcome([], study, until="embed", stain="macenko"))
        cells, crops = [str(cell) for cell in study.cells.obs_names[:3]], np.asarray(open_crops(study)[:3])
        found = drain(iter_cell_patches(study, cells[::-1], crops[::-1]))
        seen = drain(iter_find_stains(study, "macenko")).recoloured(crops[::-1], np.array([2, 1, 0]))
        assert not np.array_equal(seen, crops[::-1])
        np.testing.assert_array_equal(found.crops, seen)
        with nd.load_encoder("starter") as encoder:
            np.testing.assert_allclose(found.tokens, encoder.patch_tokens(seen), atol=1e-4)
