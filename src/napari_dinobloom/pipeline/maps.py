"""The maps of a study: which there are, which one is in use, and when it may be fitted anew.

Each is a file ``projections/HASH8.safetensors``. ``projections/active.json`` says which one is in use for the
embeddings of which encoder, with what settings it was made, and which ones are kept for good. A map is **frozen** when
it has gates or was brought from elsewhere: cells are placed on it, it is never fitted anew in its place. Other maps
follow the cells.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dinobloom.errors import InputError, StudyError
from napari_dinobloom.explore.projection import Projection, ProjectionError
from napari_dinobloom.io.atomic import disk_errors, write_text
from napari_dinobloom.pipeline.settings import RunSettings, digest

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study

FOLDER = "projections"
STATE = "active.json"
KEPT = "X_umap:"
"""Before the first 8 characters of a kept map's hash, the name of its coordinates in ``obsm``."""

TABLE = "cells.h5ad"
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class StoredMap:
    """A map that a study holds.

    Attributes
    ----------
    hash : str
        Hexadecimal sha256.
    kind : str
        ``umap``, ``pca`` or ``given``.
    cells : int
        Fitted cells.
    encoder : str
        Name of the encoder whose embeddings it rests on; empty where it is not known.
    params : mapping
        What it was fitted with.
    gates : int
        Gates on it.
    active : bool
        Whether it is the one in use.
    frozen : bool
        Whether it has gates or was brought.
    path : Path
        Its file.
    """

    hash: str
    kind: str
    cells: int
    encoder: str
    params: Mapping[str, Any]
    gates: int
    active: bool
    frozen: bool
    path: Path


@dataclass(slots=True)
class State:
    """What ``active.json`` says."""

    active: dict[str, str] = field(default_factory=dict)
    """Encoder (sha256 and pooling) to the hash of its map in use."""
    layouts: dict[str, str] = field(default_factory=dict)
    """Hash to the digest of the settings with which a run made it."""
    kept: list[str] = field(default_factory=list)
    """Hashes of maps that no run takes away: someone asked for them."""
    brought: list[str] = field(default_factory=list)
    """Hashes of maps from elsewhere, or of given coordinates."""


def read_state(study: Study) -> State:
    """Read which maps are in use; raise StudyError if the file is damaged."""
    path = study.path / FOLDER / STATE
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise ValueError(f"it is {path.stat().st_size:,} bytes long")
        raw = json.loads(path.read_text(encoding="utf-8"))
        state = State(**{name: raw[name] for name in State.__slots__})
        for name, kind in (("active", dict), ("layouts", dict), ("kept", list), ("brought", list)):
            values = getattr(state, name)
            texts = [*values, *(values.values() if isinstance(values, dict) else [])]
            if not isinstance(values, kind) or not all(isinstance(text, str) for text in texts):
                raise ValueError(f"{name!r} holds something else")
    except FileNotFoundError:
        return State()
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StudyError(
            f"{path}: is damaged ({error}). Delete it; then choose the map in use with "
            "`napari-dinobloom map STUDY --use HASH`."
        ) from error
    return state


def write_state(study: Study, state: State) -> None:
    """Replace ``active.json``."""
    path = study.path / FOLDER / STATE
    content = {"schema": 1, **{name: getattr(state, name) for name in State.__slots__}}
    with disk_errors(path):
        path.parent.mkdir(exist_ok=True)
        write_text(path, json.dumps(content, indent=1, sort_keys=True) + "\n")


def encoder_of(study: Study) -> str:
    """What tells the embeddings of the cell table from another encoder's; empty where there are none."""
    notes = dict(study.cells.uns.get("dinobloom", {}))
    return f"{notes['encoder_sha256']} {notes.get('pooling', 'class')}" if "encoder_sha256" in notes else ""


def active_hash(study: Study, encoder: str | None = None) -> str:
    """Hash of the map in use for the embeddings of the cell table, or of `encoder`; empty where there is none."""
    found = named_hash(study, encoder)
    return found if found and map_path(study, found).is_file() else ""


def named_hash(study: Study, encoder: str | None = None) -> str:
    """Hash of the map that should be in use, whether its file is there or not.

    Where ``active.json`` says nothing of the table's encoder, as when it was deleted, it is the one of the table.
    """
    from napari_dinobloom.explore.gate_axes import active_projection

    own = encoder_of(study)
    found = read_state(study).active.get(own if encoder is None else encoder, "")
    return found or (active_projection(study.cells) if encoder in (None, own) else "")


def map_of(study: Study, settings: RunSettings) -> str:
    """Hash of the map in use for the embeddings that a run with these settings makes; empty where there is none."""
    from napari_dinobloom.encoders.library import identify
    from napari_dinobloom.pipeline.embed import pooling_of

    return active_hash(study, f"{identify(settings.encoder)} {pooling_of(settings)}")


def map_path(study: Study, key: str) -> Path:
    """File of the map with this hash."""
    return study.path / FOLDER / f"{key[:8]}.safetensors"


def gates_on(study: Study, key: str) -> int:
    """Count the gates on a map as the journal leaves them."""
    nodes: dict[str, Any] = {}
    for act in study.gate_acts(key):
        nodes.update(act["new"])
    return sum(node is not None for node in nodes.values())


def is_frozen(study: Study, key: str) -> bool:
    """Whether a map is kept as it is: it has gates, or was brought from elsewhere."""
    return key in read_state(study).brought or gates_on(study, key) > 0


def stored_maps(study: Study) -> list[StoredMap]:
    """List the maps that a study holds, the one in use first; the study may be open for reading only."""
    used, brought, found = active_hash(study), read_state(study).brought, []
    for path in sorted((study.path / FOLDER).glob("*.safetensors")):
        try:
            header = Projection.peek(path)
        except ProjectionError:  # of an early version, or damaged: whoever wants it by its hash is told
            continue
        key = str(header["hash"])
        encoder = str(header["about"].get("encoder", ""))
        gates = gates_on(study, key)
        known = (header["projection"], int(header["cells"]), encoder, header["params"], gates)
        found.append(StoredMap(key, *known, key == used, key in brought or gates > 0, path))
    return sorted(found, key=lambda one: not one.active)


def read_map(study: Study, which: str) -> Projection:
    """Read the map whose hash begins with `which`.

    Raises
    ------
    StudyError
        If none or several do.
    """
    known = stored_maps(study)
    found = [one for one in known if which and one.hash.startswith(which.lower())]
    if len(found) != 1:
        names = ", ".join(one.hash[:8] for one in known) or "there are none yet"
        raise StudyError(f"{study.path}: {len(found) or 'none'} of its maps begin with {which[:64]!r}. Maps: {names}.")
    return Projection.load(found[0].path)


def step_key(study: Study, embedded: str, settings: RunSettings, used: str) -> str:
    """Key of the map's step: that of the embeddings, the map `used`, and what would make another one."""
    from napari_dinobloom.explore import placing

    own = layout_of(settings)
    layout = read_state(study).layouts.get(used, own) if used and is_frozen(study, used) else own
    return digest(embedded, used, layout, placing.VERSION)


def layout_of(settings: RunSettings) -> str:
    """Digest of all settings that decide a layout."""
    from napari_dinobloom.explore import duplicates, projection

    return digest(map_settings(settings), projection.VERSION, duplicates.VERSION)


def map_settings(settings: RunSettings) -> dict[str, Any]:
    """Settings of a run as `explore.layout.umap` takes them."""
    return {
        "method": settings.map_method,
        "n_neighbors": settings.neighbours,
        "min_dist": settings.min_dist,
        "seed": settings.seed,
        "subset": settings.map_subset,
        "restandardise": settings.restandardise or None,
    }


def check_asked(study: Study, asked: Mapping[str, Any], settings: RunSettings) -> None:
    """Refuse settings of the map that were asked for now and that a frozen map cannot take.

    Raises
    ------
    InputError
        With both ways out.
    """
    names = ("neighbours", "min_dist", "seed", "restandardise", "map_method", "map_subset")
    wanted = {name: asked[name] for name in names if asked.get(name) is not None}
    used = map_of(study, settings) if wanted else ""
    if not used or not is_frozen(study, used):
        return
    header = Projection.peek(map_path(study, used))
    has = {**header["params"], "map_method": header["projection"]}
    has |= {"neighbours": has.get("n_neighbors"), "map_subset": has.get("subset") or None}
    other = [name for name, value in wanted.items() if has.get(name) != value]
    if other:
        raise InputError(
            f"{study.path}: the map {used[:8]} has gates or was brought, so {', '.join(other)} cannot change it. Make "
            "another map with `napari-dinobloom map STUDY --refit` and these settings, or leave them out."
        )
