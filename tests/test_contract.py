"""The public names that others call are there, and take what they are called with."""

import importlib
import inspect

import pytest
from typer.main import get_command

from napari_dinobloom.cli import app

NAMES = {
    "napari_dinobloom.run": "inputs out",
    "napari_dinobloom.read_smear": "path",
    "napari_dinobloom.segment": "image pixel_size_um",
    "napari_dinobloom.crop": "image cells_or_table",
    "napari_dinobloom.load_encoder": "name device precision",
    "napari_dinobloom.Encoder.embed": "crops",
    "napari_dinobloom.Encoder.patch_tokens": "crops",
    "napari_dinobloom.patch_pca": "tokens",
    "napari_dinobloom.Study.open": "path",
    "napari_dinobloom.Study.create": "path",
    "napari_dinobloom.Study.cells": "",
    "napari_dinobloom.umap": "adata",
    "napari_dinobloom.PolygonGate": "name axes vertices",
    "napari_dinobloom.PolygonGate.apply": "table",
    "napari_dinobloom.RectangleGate.apply": "table",
    "napari_dinobloom.EllipseGate.apply": "table",
    "napari_dinobloom.QuadrantGate.apply": "table",
    "napari_dinobloom.RangeGate.apply": "table",
    "napari_dinobloom.BooleanGate": "name",
    "napari_dinobloom.GateTree": "",
    "napari_dinobloom.KnnClassifier.fit": "X y",
    "napari_dinobloom.KnnClassifier.predict": "X",
    "napari_dinobloom.KnnClassifier.predict_proba": "X",
    "napari_dinobloom.KnnClassifier.save": "path",
    "napari_dinobloom.KnnClassifier.load": "path",
    "napari_dinobloom.LinearProbe.fit": "X y",
    "napari_dinobloom.LinearProbe.predict": "X",
    "napari_dinobloom.LinearProbe.predict_proba": "X",
    "napari_dinobloom.LinearProbe.save": "path",
    "napari_dinobloom.LinearProbe.load": "path",
    "napari_dinobloom.AttentionMIL": "preset",
    "napari_dinobloom.AttentionMIL.fit": "bags y",
    "napari_dinobloom.AttentionMIL.predict_proba": "bags",
    "napari_dinobloom.differential": "table",
    "napari_dinobloom.training.losses.sinkhorn_knopp": "logits temperature iterations",
    "napari_dinobloom.training.losses.dino_loss": "student_logits assignment temperature",
    "napari_dinobloom.training.losses.ibot_loss": "student_logits assignment masks temperature",
    "napari_dinobloom.training.losses.koleo_loss": "x",
    "napari_dinobloom.training.heads.DINOHead": "",
    "napari_dinobloom.training.schedules.Schedules": "",
}
COMMANDS = "run sample segment crop embed map gate classify mil atlas report evaluate train export doctor weights"


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_is_there_and_takes_its_arguments_in_order(name: str) -> None:
    parts = name.split(".")
    at = max(i for i in range(1, len(parts)) if _is_module(".".join(parts[:i])))
    found = importlib.import_module(".".join(parts[:at]))
    for part in parts[at:]:
        found = getattr(found, part)
    wanted = NAMES[name].split()
    taken = [one for one in inspect.signature(found).parameters if one != "self"] if wanted else []
    assert [one for one in taken if one in wanted][: len(wanted)] == wanted


def test_every_command_is_there() -> None:
    assert set(COMMANDS.split()) <= set(get_command(app).commands)  # type: ignore[attr-defined]


def _is_module(name: str) -> bool:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        return False
    return True
