"""What may name the cells of a study: atlases and probes of the shelf and of files, and why some of them do not fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dinobloom.io.study import Study
from napari_dinobloom.predict.classifier import REFERENCE_STAIN
from napari_dinobloom.ui.texts import text

if TYPE_CHECKING:
    from napari_dinobloom.cells.crop import CropPolicy
    from napari_dinobloom.predict.shelf import Shelved


@dataclass(frozen=True, slots=True)
class Reference:
    """An atlas or a probe that is offered.

    Attributes
    ----------
    asked : str
        What a run takes as its setting `atlas`.
    name : str
        Name for people.
    kind : str
        ``atlas`` or ``probe``.
    path : Path
        Its file.
    title : str
        Line of the list.
    why : str
        Why it cannot name the cells of the study; empty where it can.
    """

    asked: str
    name: str
    kind: str
    path: Path
    title: str
    why: str = ""


def described(study: Study | None) -> str:
    """Encoder and crops of a study, for people; empty where its cells have no embeddings."""
    if study is None or not _encoder_of(study)[1]:
        return ""
    policy = _policy_of(study)
    crops = text("classify.crops.published")
    if policy.kind == "context":
        in_um = policy.fov_diameters is None
        size = policy.fov_um if policy.fov_diameters is None else policy.fov_diameters
        unit = text("segment.unit.um") if in_um else text("segment.unit.diameters")
        crops = text("classify.crops.context", size=size, unit=unit)
    return text("classify.encoder.of", encoder=_encoder_of(study)[0], crops=crops)


def offered(study: Study | None, files: Sequence[Path] = ()) -> list[Reference]:
    """All references there are: those that fit the study first.

    Parameters
    ----------
    study : Study or None
        Open.
    files : sequence of Path
        Files beside the shelf.
    """
    from napari_dinobloom.predict.shelf import look_at, shelf

    found = [(one, one.name) for one in shelf()] + [(look_at(path), str(path)) for path in files]
    return sorted((_reference(one, asked, study) for one, asked in found), key=lambda one: bool(one.why))


def last_used(study: Study) -> Path | str:
    """What a study was named by last, or would be: a name, or the file of the one that comes with its encoder."""
    from napari_dinobloom.pipeline.settings import resolve
    from napari_dinobloom.predict.shelf import bundled_file

    settings = resolve(study.settings, {})
    return bundled_file(settings.encoder, _policy_of(study)) or "" if settings.atlas == "auto" else settings.atlas


def _reference(one: Shelved, asked: str, study: Study | None) -> Reference:
    """One line of the list."""
    why = one.problem or ("" if study is None else _why_not(one, study))
    kind = text(f"classify.kind.{one.kind}")
    title = text("classify.reference.item", name=one.name, kind=kind, classes=len(one.classes), cells=one.cells)
    if why:
        title = text("classify.reference.refused", name=one.name, why=why)
    return Reference(asked, one.name, one.kind, one.path, title, why)


def _why_not(one: Shelved, study: Study) -> str:
    """Why a reference cannot name the cells of a study; empty where it can."""
    _, sha256 = _encoder_of(study)
    if not sha256:
        return text("classify.why.no_embeddings")
    if one.encoder_sha256 != sha256:
        return text("classify.refused.encoder", encoder=one.encoder, sha256=one.encoder_sha256[:8])
    if one.pooling != study.cells.uns["dinobloom"].get("pooling", "class"):
        return text("classify.refused.pooling", pooling=one.pooling)
    if one.stain not in (study.cells.uns["dinobloom"].get("stain", ""), REFERENCE_STAIN):
        return text("classify.refused.stain")
    return "" if one.policy_hash == _policy_of(study).hash else text("classify.refused.crops")


def _encoder_of(study: Study) -> tuple[str, str]:
    """Name and hash of the encoder whose embeddings the cell table holds; empty where it holds none."""
    notes = study.cells.uns.get("dinobloom", {})
    return str(notes.get("encoder", "")), str(notes.get("encoder_sha256", ""))


def _policy_of(study: Study) -> CropPolicy:
    """How the cells of a study are cut out."""
    from napari_dinobloom.pipeline.crops import policy_of
    from napari_dinobloom.pipeline.settings import resolve

    return policy_of(resolve(study.settings, {}))
