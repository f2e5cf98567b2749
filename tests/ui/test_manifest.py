"""The manifest: valid, and cheap to follow."""

from __future__ import annotations

import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from napari._app_model.constants import MenuId
from npe2 import PluginManifest
from npe2.cli import app
from typer.testing import CliRunner

MANIFEST = Path(str(files("napari_dinobloom"))) / "napari.yaml"


@pytest.fixture(scope="module")
def manifest() -> PluginManifest:
    return PluginManifest.from_file(MANIFEST)


def test_npe2_validates_it():
    answer = CliRunner().invoke(app, ["validate", str(MANIFEST)])
    assert answer.exit_code == 0, answer.output
    assert "valid" in answer.output
    assert "🅇" not in answer.output


def test_every_command_can_be_imported(manifest):
    manifest.validate_imports()


def test_menus_are_menus_that_napari_lets_plugins_into(manifest):
    assert set(manifest.contributions.menus) <= {str(menu) for menu in MenuId.contributables()}


def test_every_command_is_contributed_somewhere(manifest):
    contributions = manifest.contributions
    parts = [*contributions.widgets, *contributions.readers, *contributions.writers, *contributions.sample_data]
    assert {part.command for part in parts} == {command.id for command in contributions.commands}


@pytest.mark.gui
def test_following_the_manifest_imports_nothing_heavy():
    """Everything but the widgets without even napari's Qt; the widgets without torch and its kin."""
    code = """
        import sys
        import napari_dinobloom.ui.reader, napari_dinobloom.ui.samples
        import napari_dinobloom.ui.cell_pictures, napari_dinobloom.ui.writers
        heavy = {"torch", "timm", "umap", "sklearn", "skimage", "anndata", "matplotlib", "napari", "qtpy"}
        light = heavy & set(sys.modules)
        assert not light, light
        from napari.components import ViewerModel
        from qtpy.QtWidgets import QApplication
        app = QApplication.instance() or QApplication([])
        import numba, anndata  # napari and psygnal bring what they bring: only what the widget adds counts
        before = set(sys.modules)
        from napari_dinobloom.ui.widgets.run_widget import RunWidget
        from napari_dinobloom.ui.widgets.segment_widget import SegmentWidget
        from napari_dinobloom.ui.widgets.embed_widget import EmbedWidget
        from napari_dinobloom.ui.widgets.patches_widget import PatchesWidget
        from napari_dinobloom.ui.widgets.report_widget import ReportWidget
        from napari_dinobloom.ui.widgets.study_widget import StudyWidget
        kinds = (RunWidget, SegmentWidget, StudyWidget, EmbedWidget, PatchesWidget, ReportWidget)
        widgets = [kind(ViewerModel()) for kind in kinds]
        new = {name.partition(".")[0] for name in set(sys.modules) - before}
        assert not new & {"torch", "torchvision", "timm", "umap", "sklearn", "matplotlib", "zarr"}, new
        assert "torch" not in sys.modules
    """
    program = "\n".join(line[8:] for line in code.splitlines())
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
