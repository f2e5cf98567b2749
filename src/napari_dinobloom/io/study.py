"""A study: the folder ``NAME.dinobloom/`` with its images, masks, cell table and human acts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io import celltable, journal, lock, manifest, vectors
from napari_dinobloom.io.atomic import disk_errors
from napari_dinobloom.io.fields import FieldRecord
from napari_dinobloom.io.masks import FieldMasks, draw, joined, load_masks, save_masks
from napari_dinobloom.io.replay import replay
from napari_dinobloom.io.shapes import MEASURED, Shape, masks_of
from napari_dinobloom.io.study_journal import EDITS, StudyJournal
from napari_dinobloom.io.trust import check_text, inside

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["CELLS", "EDITS", "FieldRecord", "Study"]

CELLS = "cells.h5ad"

CellIds = str | Iterable[str]


class Study(StudyJournal):
    """A study, opened.

    Make one with `Study.create`, `Study.open` or `Study.open_or_create`; use it as a context manager or call `close`.
    A human act is on the disk when its method returns, and `undo` takes it back, also in a later session.

    Attributes
    ----------
    path : Path
        The folder.
    read_only : bool
        Whether nothing may be written: asked for, held by another process, or the folder may not be written.
    held_by : Holder or None
        The process that writes, if that is why.
    orphans : list of str
        Cells that the journal names and the table does not have, and cells with a hand label that the segmentation no
        longer finds; their acts are kept. Known once `cells` was read.
    cells_version : int
        Grows with every change of the cell table that this object makes or reads: what was computed before is old.
    """

    def __init__(self, path: Path, content: manifest.Manifest, held: lock.Lock | lock.Holder | None, why: str) -> None:
        super().__init__(path, content, held, why)
        self.orphans: list[str] = []
        self.cells_version = 0
        self._cells: AnnData | None = None
        self._numbers: dict[str, int] | None = None

    # Masks

    def masks_path(self, field_id: str) -> Path:
        """Path of the mask file of a field."""
        return inside(self.path, f"masks/{self.field(field_id).id}.npz")

    def save_masks(self, field_id: str, masks: FieldMasks, table_json: str, key: str) -> Path:
        """Write the masks of a field, its table and the key of what they were computed from; return the path."""
        self.ensure_writable()
        path = self.masks_path(field_id)
        with disk_errors(path):
            path.parent.mkdir(exist_ok=True)
        save_masks(path, masks, table_json, key)
        return path

    def masks(self, field_id: str) -> FieldMasks:
        """Return the bitmaps of the cells of a field, as people have corrected them; deleted cells are left out.

        Cells whose outline a person changed or made come last, so that they lie on top when drawn.
        """
        stored = load_masks(self.masks_path(field_id))[0]
        with self._guard:
            shapes, deleted = self.hand_shapes(field_id), self._acts().deleted
            ids = [celltable.cell_id(field_id, number) for number in stored.numbers.tolist()]
            kept = [i for i, cell in enumerate(ids) if cell not in shapes and not deleted.get(cell)]
            by_hand = masks_of({cell: shape for cell, shape in shapes.items() if not deleted.get(cell)})
        return joined(stored.take(kept), by_hand) if len(by_hand) or len(kept) < len(stored) else stored

    def labels(self, field_id: str) -> NDArray[np.int32]:
        """Draw the cells of a field: (Y, X) int32, 0 or the number in the cell's id."""
        record = self.field(field_id)
        return draw(self.masks(field_id), (record.height, record.width), "cells")

    def nuclei(self, field_id: str) -> NDArray[np.int32]:
        """Draw the nuclei of a field: (Y, X) int32, 0 or the number in the cell's id."""
        record = self.field(field_id)
        return draw(self.masks(field_id), (record.height, record.width), "nuclei")

    # The cell table

    @property
    def cells(self) -> AnnData:
        """The cell table with all human acts in it, with no row when there is none yet.

        The same object each time, until an act adds a cell or the table is replaced. Of very many cells the embeddings
        ``X`` stay on the disk and are read where they are asked for, see `io.vectors`.
        """
        with self._guard:
            if self._cells is None:
                path = inside(self.path, CELLS)
                adata = celltable.read_cells(path) if path.exists() else celltable.empty_cells()
                self._cells, self.orphans = self._replayed(adata, self._acts().entries)
            return self._cells

    def reload(self) -> None:
        """Forget what is in memory, so that a read-only study shows what the writer has done since."""
        with self._guard:
            self._cells, self._journal, self._numbers = None, None, None
            self.cells_version += 1
            self._manifest = manifest.read_manifest(self.path)

    def save_cells(self, adata: AnnData) -> None:
        """Replace the cell table, whole or not at all; `adata` becomes `cells`.

        Columns of `celltable.COLUMNS` that are missing are filled, human acts are applied again (cells made by hand
        that `adata` lacks are appended to a copy of it), and the highest number ever given in each field is kept, so
        that `next_number` never gives one twice.
        """
        self.ensure_writable()
        with self._guard:
            numbers = self._last_numbers()
            if adata.is_view:
                adata = adata.copy()
            adata.obs = celltable.complete(adata.obs)
            adata, self.orphans = self._replayed(adata, self._acts().entries)
            numbers = celltable.highest_numbers(adata.obs["cell_id"], numbers)
            celltable.write_cells(self.path / CELLS, adata, numbers)
            if vectors.stays(adata.X):
                adata.X = vectors.stored(self.path / CELLS)
            self._numbers, self._cells = numbers, adata
            self.cells_version += 1

    def next_number(self, field_id: str) -> int:
        """Return the first number that no cell of this field, deleted ones included, ever had."""
        return self._last_numbers().get(self.field(field_id).id, 0) + 1

    def _last_numbers(self) -> dict[str, int]:
        """Highest number ever given in each field, by the segmentation or a person."""
        if self._numbers is None:
            path = inside(self.path, CELLS)
            self._numbers = celltable.read_numbers(path) if path.exists() else {}
        with self._guard:
            made = pd.Series(list(self._acts().shapes), dtype=object)
        return celltable.highest_numbers(made, self._numbers)

    def _replayed(self, adata: AnnData, entries: Sequence[journal.Entry]) -> tuple[AnnData, list[str]]:
        """Put acts into a table; cells that they made are appended, which gives another object."""
        return replay(entries, adata, {record.id: record for record in self.fields})

    # What people drew

    def hand_shapes(self, field_id: str | None = None) -> dict[str, Shape]:
        """Outlines that people drew or changed, by cell id, of one field or all; also those of deleted cells."""
        with self._guard:
            shapes = self._acts().shapes
            if field_id is None:
                return dict(shapes)
            return {cell: shape for cell, shape in shapes.items() if cell.rpartition(":")[0] == field_id}

    def hand_deleted(self) -> set[str]:
        """Cells that people said are none: deleted, merged or split; not those whose making was undone."""
        with self._guard:
            acts = self._acts()
            return {cell for cell, value in acts.deleted.items() if value} - acts.unmade

    def hand_unmade(self) -> set[str]:
        """Cells whose making was undone."""
        with self._guard:
            return set(self._acts().unmade)

    def shapes(self, cell_ids: Sequence[str]) -> dict[str, Shape]:
        """Outlines and measures of living cells of one field as they are now.

        Raises
        ------
        StudyError
            If a cell is unknown or deleted, or they lie in several fields.
        """
        with self._guard:
            obs = self.cells.obs
            for cell in cell_ids:
                if cell not in obs.index or obs.at[cell, "deleted"]:
                    raise StudyError(f"{self.path}: has no cell {cell[:100]!r}, or it is deleted. Choose another cell.")
            fields = sorted({celltable.split_cell_id(cell)[0] for cell in cell_ids})
            if len(fields) > 1:
                raise StudyError(
                    f"{self.path}: these cells lie in the fields {', '.join(fields)}. Choose those of one."
                )
            masks = self.masks(fields[0]) if fields else FieldMasks.empty()
            found = {celltable.cell_id(fields[0], number): i for i, number in enumerate(masks.numbers.tolist())}
            for cell in cell_ids:
                if cell not in found:
                    raise StudyError(f"{self.masks_path(fields[0])}: lacks the outline of cell {cell}. Run again.")
            rows = obs.loc[list(cell_ids), list(MEASURED)].to_dict("index")
            at = {cell: found[cell] for cell in cell_ids}
            return {
                cell: Shape.of(masks.boxes[i], masks.cells[i], masks.nuclei[i], rows[cell]) for cell, i in at.items()
            }

    # Human acts

    def label(
        self,
        cell_ids: CellIds,
        value: str | Sequence[str],
        *,
        who: str | None = None,
        reviewed: bool | Sequence[bool] | None = None,
    ) -> journal.Entry | None:
        """Give cells a class by hand; an empty `value` takes the hand label away.

        Parameters
        ----------
        cell_ids : str or iterable of str
            The cells, each once where there are several values.
        value : str or sequence of str
            One class for all, or one for each cell.
        who : str, optional
            Reader who says so; else the user of this machine.
        reviewed : bool or sequence of bool, optional
            Set the review mark in the same act: one for all, or one for each cell.

        Returns
        -------
        Entry or None
            The journal's line; None if no cell is named.
        """
        values = [value] if isinstance(value, str) else list(value)
        for one in values:
            check_text(one, "label")
        by, when = _reader(who), journal.now()
        columns: dict[str, list[journal.Value]] = {
            "label": [*values],
            "label_by": [by if one else "" for one in values],
            "label_at": [when if one else "" for one in values],
        }
        new: dict[str, journal.Values] = {
            name: column[0] if isinstance(value, str) else column for name, column in columns.items()
        }
        if reviewed is not None:
            new["reviewed"] = reviewed if isinstance(reviewed, bool) else [*reviewed]
        return self._act("label", cell_ids, new, when, by)

    def exclude(self, cell_ids: CellIds, value: bool = True, *, who: str | None = None) -> journal.Entry | None:
        """Leave cells out of every count, or take them back with False."""
        return self._act("exclude", cell_ids, {"excluded": bool(value)}, who=_reader(who))

    def set_review(self, cell_ids: CellIds, value: bool = True, *, who: str | None = None) -> journal.Entry | None:
        """Mark cells as looked at by a person."""
        return self._act("review", cell_ids, {"reviewed": bool(value)}, who=_reader(who))

    def delete(self, cell_ids: CellIds, value: bool = True) -> journal.Entry | None:
        """Mark cells as none at all; their rows and ids stay."""
        return self._act("delete", cell_ids, {"deleted": bool(value)})

    def reshape(
        self,
        op: Literal["add", "merge", "split", "repaint"],
        shapes: Mapping[str, Shape],
        *,
        delete: Sequence[str] = (),
        inherit: Mapping[str, str] | None = None,
    ) -> journal.Entry:
        """Change outlines, make and delete cells of one field: one act.

        Parameters
        ----------
        op : str
            What the person did.
        shapes : mapping
            Cell id to its new outline; an id from `next_number` onwards is a new cell.
        delete : sequence of str
            Cells that are no more.
        inherit : mapping, optional
            New cell to the cell whose hand label it takes over.

        Returns
        -------
        Entry
            The journal's line; it is on the disk.

        Raises
        ------
        StudyError
            If a cell is unknown or deleted, an id was given before, a shape leaves its field, or nothing may be
            written. Nothing has changed then.
        """
        self.ensure_writable()
        with self._guard:
            obs = self.cells.obs
            known = [cell for cell in shapes if cell in obs.index]
            made = [cell for cell in shapes if cell not in obs.index]
            before = self.shapes([*delete, *known])
            self._check_shapes(shapes, made)
            cells = [*delete, *known, *made]
            old: dict[str, list[journal.Value]] = {"deleted": [cell in made for cell in cells]}
            new: dict[str, list[journal.Value]] = {"deleted": [cell in delete for cell in cells]}
            for name in ("label", "label_by", "label_at") if inherit else ():
                now = {cell: str(obs.at[cell, name]) if cell in before else "" for cell in cells}
                old[name] = list(now.values())
                new[name] = [now[(inherit or {}).get(cell, cell)] for cell in cells]
            old_shapes = {cell: before[cell] for cell in known}
            return self._set(self._acts().append(op, cells, old, new, old_shapes=old_shapes, new_shapes=shapes))

    def _check_shapes(self, shapes: Mapping[str, Shape], made: Sequence[str]) -> None:
        """Refuse outlines that leave their field, and new cells with an id that was given before."""
        for cell, shape in shapes.items():
            name, number = celltable.split_cell_id(cell)
            record = self.field(name)
            if not shape.fits(record.height, record.width):
                raise StudyError(f"{self.path}: the outline of {cell} leaves its field. Draw it inside.")
            if cell in made and number < self.next_number(name):
                raise StudyError(f"{self.path}: the id {cell} was given before; {self.next_number(name)} is free.")

    def undo(self) -> journal.Entry | None:
        """Take the last act back, in this session or an earlier one; None if there is none."""
        return self._invert("undo")

    def redo(self) -> journal.Entry | None:
        """Do again what `undo` took back; None if there is nothing."""
        return self._invert("redo")

    def _act(
        self,
        op: str,
        cell_ids: CellIds,
        new: dict[str, journal.Values],
        when: str | None = None,
        who: str | None = None,
    ) -> journal.Entry | None:
        """Write one act and set it in the table; None if no cell is named."""
        wanted = list(dict.fromkeys([cell_ids] if isinstance(cell_ids, str) else map(str, cell_ids)))
        if not wanted:
            return None
        self.ensure_writable()
        with self._guard:
            obs = self.cells.obs
            rows = obs.index.get_indexer(pd.Index(wanted, dtype=object))
            if (rows < 0).any():
                missing = [cell for cell, row in zip(wanted, rows, strict=True) if row < 0]
                raise StudyError(f"{self.path}: has no cell {missing[0][:100]!r} ({len(missing)} unknown in all).")
            spread = {name: value if isinstance(value, list) else [value] * len(wanted) for name, value in new.items()}
            if any(len(values) != len(wanted) for values in spread.values()):
                raise StudyError(f"{self.path}: {len(wanted)} cells, but another number of values. Give one for each.")
            old = {column: obs[column].to_numpy()[rows].tolist() for column in new}
            return self._set(self._acts().append(op, wanted, old, spread, who=who, when=when))

    def _invert(self, op: Literal["undo", "redo"]) -> journal.Entry | None:
        """Write the inverse of the act on top of a stack and set it in the table."""
        self.ensure_writable()
        with self._guard:
            acts = self._acts()
            target = acts.to_undo() if op == "undo" else acts.to_redo()
            if target is None:
                return None
            if target.patients:
                known = self._groups_to_change()
                entry = acts.invert(op, target)
                self._keep_groups(known, entry)
                return entry
            if target.projection is None:
                _ = self.cells  # a table that cannot be read is an error before anything is written
            return self._set(acts.invert(op, target))

    def _set(self, entry: journal.Entry) -> journal.Entry:
        """Put an act of the journal into the table; one on gates changes nothing there."""
        if entry.projection is None:
            self._cells, _ = self._replayed(self.cells, [entry])
            self.cells_version += 1
        return entry


def _reader(who: str | None) -> str:
    """Name of a reader for the journal; that of the user of this machine if none is given."""
    return check_text(who, "reader") if who else journal.user()
