"""Changes of a study's maps: following the cells, fitting anew, using another one, and writing what came of it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dinobloom.errors import InputError, StudyError
from napari_dinobloom.explore.layout import EncoderMismatch, check_encoder, iter_place, iter_spots, iter_umap
from napari_dinobloom.explore.projection import Projection, ProjectionError
from napari_dinobloom.io.atomic import disk_errors
from napari_dinobloom.pipeline.maps import (
    KEPT,
    TABLE,
    active_hash,
    encoder_of,
    is_frozen,
    layout_of,
    map_path,
    map_settings,
    named_hash,
    read_map,
    read_state,
    step_key,
    stored_maps,
    write_state,
)
from napari_dinobloom.pipeline.settings import STEPS, RunSettings, resolve
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_dinobloom.io.study import Study


def iter_follow(study: Study, adata: AnnData, settings: RunSettings) -> Steps[Projection]:
    """Bring the map of a run up to date: place cells on a frozen map, else fit anew; the table changes in memory.

    Returns
    -------
    Projection
        The map in use; `commit` writes it.
    """
    used = active_hash(study)
    named = named_hash(study)
    if named and not used and is_frozen(study, named):
        raise StudyError(
            f"{map_path(study, named)}: the map in use is gone, and it has gates or was brought. Put the file back, or "
            "choose another map with `napari-dinobloom map STUDY --use HASH` or `--refit`."
        )
    if used and is_frozen(study, used):
        projection = Projection.load(map_path(study, used))
        yield Progress(0, adata.n_obs, f"on the map {used[:8]}, which is kept as it is")
        projection = yield from iter_place(adata, projection)
    else:
        projection = yield from iter_umap(adata, **map_settings(settings))
    yield from iter_kept(study, adata, projection.hash)
    return projection


def iter_kept(study: Study, adata: AnnData, used: str, *, also: str = "") -> Steps[None]:
    """Put the coordinates of all kept maps of this encoder into the table, and take those of others out.

    `also` is the hash of a map that is going to be kept. What a map learns of new slides is kept with it.
    """
    for name in [name for name in adata.obsm if name.startswith(KEPT)]:
        del adata.obsm[name]
    state = read_state(study)
    for one in stored_maps(study):
        if one.hash == used or not (one.hash in (*state.kept, also) or study.gate_acts(one.hash)):
            continue
        try:
            kept = Projection.load(one.path)
            check_encoder(adata, kept)
        except EncoderMismatch:
            continue
        except ProjectionError as error:
            warnings.warn(f"A kept map is left out: {error}", stacklevel=2)
            continue
        known, spots = yield from iter_spots(adata, kept)
        if known is not kept:
            with disk_errors(one.path):
                known.save(one.path)
        adata.obsm[f"{KEPT}{one.hash[:8]}"] = spots
    return None


def commit(
    study: Study,
    adata: AnnData,
    projection: Projection,
    layout: str = "",
    *,
    keep: bool = False,
    brought: bool = False,
) -> None:
    """Write a map, the table that shows it, and that it is in use; a run's earlier map that nobody asked for goes.

    Whatever it is killed in the middle of, the next run does the map's step again and begins with the map that
    ``active.json`` names then.

    Parameters
    ----------
    study : Study
        Open for writing.
    adata : AnnData
        Its table, with the map in it.
    projection : Projection
        The map.
    layout : str
        Digest of the settings that made it, where they did now.
    keep : bool
        Someone asked for it: it, and the one that was in use, stay.
    brought : bool
        It comes from elsewhere, so that it is frozen.
    """
    path, before = map_path(study, projection.hash), active_hash(study)
    study.forget_steps(STEPS[STEPS.index("map") :])
    with disk_errors(path):
        path.parent.mkdir(exist_ok=True)
        projection.save(path)
    study.save_cells(adata)
    state = read_state(study)
    state.active[encoder_of(study)] = projection.hash
    if layout:
        state.layouts[projection.hash] = layout
    if keep:
        state.kept = sorted({*state.kept, projection.hash, *filter(None, [before])})
    if brought:
        state.brought = sorted({*state.brought, projection.hash})
    gone = before not in ("", projection.hash, *state.kept) and not study.gate_acts(before)
    if gone:
        state.layouts.pop(before, None)
    write_state(study, state)
    if gone:
        map_path(study, before).unlink(missing_ok=True)


def iter_refit(study: Study, *, coordinates: Path | None = None, **asked: Any) -> Steps[Projection]:
    """Make a new map of all cells and use it; the one in use is kept, with its file, its coordinates and its gates.

    Parameters
    ----------
    study : Study
        Open for writing, with embeddings.
    coordinates : Path, optional
        CSV of your own coordinates instead of a layout: ``cell_id`` and two columns of numbers.
    **asked
        Settings of the map, as of a run: ``neighbours``, ``min_dist``, ``seed``, ``map_method``, ``map_subset``,
        ``restandardise``; others are as the study remembers them.

    Yields
    ------
    Progress

    Returns
    -------
    Projection
        The map in use now. Where cells and settings are the same, it is the same map.

    Raises
    ------
    StudyError
        If the study has no embeddings, or may not be written.
    """
    _check_embedded(study)
    settings = resolve(study.settings, asked)
    adata = study.cells
    given = None if coordinates is None else read_coordinates(adata, coordinates)
    backup = Backup(adata)
    try:
        projection = yield from iter_umap(adata, coordinates=given, **map_settings(settings))
        yield from iter_kept(study, adata, projection.hash, also=active_hash(study))
        _remember(study, settings)
        commit(study, adata, projection, layout_of(settings), keep=True, brought=given is not None)
    except BaseException:
        backup.restore()
        raise
    _finish(study, settings)
    return projection


def iter_use(study: Study, which: str | Path) -> Steps[Projection]:
    """Use another map: one that the study holds, by its hash, or one from elsewhere, by its file.

    Parameters
    ----------
    study : Study
        Open for writing, with embeddings.
    which : str or Path
        First characters of a hash, or a file that `Projection.save` wrote, a reference cohort's for example.

    Returns
    -------
    Projection
        The map in use now; all living cells have a place on it.

    Raises
    ------
    StudyError, ProjectionError
        If there is no such map, or it belongs to another encoder. Nothing has changed then.
    """
    _check_embedded(study)
    brought = Path(which).is_file()
    projection = Projection.load(which) if brought else read_map(study, str(which))
    own = map_path(study, projection.hash)
    if brought and own.is_file():
        known = Projection.load(own)  # it knows the slides of this study, which the file from elsewhere does not
        projection = known if known.hash == projection.hash else projection
    adata = study.cells
    backup = Backup(adata)
    try:
        projection = yield from iter_place(adata, projection)
        yield from iter_kept(study, adata, projection.hash, also=active_hash(study))
        commit(study, adata, projection, keep=True, brought=brought)
    except BaseException:
        backup.restore()
        raise
    _finish(study, resolve(study.settings, {}))
    return projection


def read_coordinates(adata: AnnData, path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Read a user's own coordinates, (n, 2) float32; undefined for cells that the file does not name."""
    import pandas as pd

    try:
        table = pd.read_csv(path, comment="#")
        names = [str(name) for name in table.columns if name != "cell_id"][:2]
        spots = table.set_index(table["cell_id"].astype(str))[names].astype(np.float32)
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: is no CSV with cell_id and two columns of numbers ({error}).") from error
    unknown = spots.index[~spots.index.isin(adata.obs_names)]
    if len(names) < 2 or spots.index.has_duplicates or len(unknown):
        what = f"cell {str(unknown[0])[:60]!r} is not in the study" if len(unknown) else "a cell or a column is missing"
        raise InputError(f"{path}: {what}. Give cell_id, each once, and two columns of numbers.")
    return spots.reindex(adata.obs_names).to_numpy(np.float32)


def _check_embedded(study: Study) -> None:
    study.ensure_writable()
    if "embed" not in study.steps or not study.cells.n_obs or study.cells.X is None:
        raise StudyError(f"{study.path}: its cells are not embedded yet. Run `napari-dinobloom embed` first.")


def _remember(study: Study, settings: RunSettings) -> None:
    if settings.to_dict() != study.settings:
        study.update(settings=settings.to_dict())


def _finish(study: Study, settings: RunSettings) -> None:
    """Note that the map's step is done with the map that is in use now."""
    study.finish_step("map", step_key(study, study.steps["embed"].key, settings, active_hash(study)), (TABLE,))


class Backup:
    """What a map changes in the table, to be put back where the disk refuses."""

    def __init__(self, adata: AnnData) -> None:
        self.adata = adata
        self.kept = tuple(dict(getattr(adata, name)) for name in ("obsm", "obsp", "uns"))

    def restore(self) -> None:
        """Put it back."""
        for name, before in zip(("obsm", "obsp", "uns"), self.kept, strict=True):
            now = getattr(self.adata, name)
            for key in list(now):
                del now[key]
            now.update(before)
