"""Study folders dropped into napari, and the sample data."""

from __future__ import annotations

import numpy as np
import pytest
from napari.components import ViewerModel
from painted import CENTRES, CLASSES, paint
from qtpy.QtWidgets import QMainWindow

from napari_dinobloom.errors import DinoBloomError
from napari_dinobloom.io.smear import write_picture
from napari_dinobloom.progress import Progress
from napari_dinobloom.ui import layers, samples
from napari_dinobloom.ui.images import smear_image, tag, why_unusable
from napari_dinobloom.ui.reader import get_reader

pytestmark = pytest.mark.gui


def opened(path) -> ViewerModel:
    """A viewer with the layers that our reader makes of `path`."""
    read = get_reader(str(path))
    assert read is not None
    viewer = ViewerModel()
    for datum in read(str(path)):
        viewer._add_layer_from_data(*datum)
    return viewer


def test_only_study_folders_are_ours(tmp_path, make_study, smear_file):
    study = make_study()
    assert get_reader(str(study.path)) is not None
    assert get_reader(str(study.path / "study.json")) is not None
    assert get_reader([str(study.path)]) is not None
    assert get_reader(str(smear_file.parent)) is None
    assert get_reader(str(tmp_path / "nowhere.dinobloom")) is None
    assert get_reader([]) is None


def test_one_field_opens_as_image_and_cells(make_study, smear):
    study = make_study()
    viewer = opened(study.path / "study.json")
    image, cells = viewer.layers
    np.testing.assert_array_equal(np.asarray(image.data), smear)
    assert image.rgb
    assert cells.ndim == 2
    first = layers.info(cells, 1)
    assert first is not None
    assert first.name == CLASSES[0]
    assert not study.read_only, "reading takes no lock"


def test_fields_of_one_size_make_a_stack_that_can_be_run_again(make_study):
    study = make_study(0, 5)
    image, cells = opened(study.path).layers
    assert image.data.shape[0] == cells.data.shape[0] == 2
    assert why_unusable(image) == ""
    assert smear_image(image).default_folder() == study.path
    y, x = CENTRES[0]
    assert int(cells.data[1, y, x + 5]) == 4
    assert tag(image)["fields"] == tuple(record.id for record in study.fields)


def test_cells_open_also_when_the_pictures_are_gone(make_study):
    study = make_study()
    study.locate(study.fields[0]).unlink()
    (cells,) = opened(study.path).layers
    assert tag(cells)["role"] == "cells"


def test_a_study_without_a_field_says_so(make_study):
    study = make_study()
    study.update(fields=[])
    with pytest.raises(DinoBloomError, match="no field"):
        opened(study.path)


def test_the_generated_smear_can_be_run():
    ((data, meta, kind),) = samples.generated_smear()
    viewer = ViewerModel()
    (layer,) = viewer._add_layer_from_data(data, meta, kind)
    assert why_unusable(layer) == ""
    assert smear_image(layer).pixel_size_um
    ((again, _, _),) = samples.generated_smear()
    np.testing.assert_array_equal(np.asarray(data), np.asarray(again))


def test_real_fields_come_as_a_stack_once_they_are_there(monkeypatch, tmp_path, qtbot):
    import napari_dinobloom.io.sample as sample

    def fetched():
        files, folder = [], sample.real_folder()
        for at in range(3):
            files.append(folder / f"{at}.png")
            folder.mkdir(parents=True, exist_ok=True)
            write_picture(files[-1], paint(at))
            yield Progress(at + 1, 3, files[-1].name)
        return files

    monkeypatch.setattr(sample, "iter_fetch_real", fetched)
    ((data, meta, kind),) = samples.real_fields()
    assert (data.shape, kind, meta["rgb"]) == ((3, 96, 128, 3), "image", True)
    np.testing.assert_array_equal(data[2], paint(2))


def test_real_fields_without_a_network_say_how_to_go_on(monkeypatch, qtbot):
    import napari_dinobloom.io.sample as sample

    def offline():
        yield Progress(0, 1, "x")
        raise DinoBloomError(f"no network. {sample.GO_ON}")

    monkeypatch.setattr(sample, "iter_fetch_real", offline)
    with pytest.raises(DinoBloomError, match="no network"):
        samples.real_fields()


def test_a_study_that_one_viewer_shows_is_read_whole_for_another(make_study, monkeypatch, qtbot):
    path, shown = str(make_study(0).path), ViewerModel()
    for data, meta, kind in get_reader(path)(path):
        getattr(shown, f"add_{kind}")(data, **meta)
    monkeypatch.setattr("napari.viewer.current_viewer", lambda: shown)
    for _ in range(2):
        qtbot.addWidget(QMainWindow())
    assert len(get_reader(path)(path)) == 2
