"""A study: the folder ``NAME.dinobloom/`` with its images, masks, cell table and human acts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io import celltable, journal, locations, lock, manifest
from napari_dinobloom.io.atomic import disk_errors
from napari_dinobloom.io.fields import INSIDE, FieldRecord, make_id
from napari_dinobloom.io.folder import StudyFolder
from napari_dinobloom.io.masks import FieldMasks, draw, load_masks, save_masks
from napari_dinobloom.io.roots import find_root
from napari_dinobloom.io.smear import Smear, read_smear, write_picture
from napari_dinobloom.io.trust import check_relative, check_text, inside

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["CELLS", "EDITS", "FieldRecord", "Study"]

CELLS = "cells.h5ad"
EDITS = "edits.jsonl"

CellIds = str | Iterable[str]


class Study(StudyFolder):
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
        Cells that the journal names and the table does not have; known once `cells` was read.
    """

    def __init__(self, path: Path, content: manifest.Manifest, held: lock.Lock | lock.Holder | None, why: str) -> None:
        super().__init__(path, content, held, why)
        self.orphans: list[str] = []
        self._journal: journal.Journal | None = None
        self._cells: AnnData | None = None
        self._numbers: dict[str, int] | None = None
        self._places: dict[str, Path] = {}

    # Images and masks

    def add_root(self, folder: str | Path) -> str:
        """Return the root id of a folder of images; a new one where no known root is this folder.

        A root that is not found on this machine is recognised by the hashes of its files and remembered at its new
        place. Where the folder lies is kept in the user's own locations file, not in the study.
        """
        folder = Path(folder).resolve()
        if folder == self.path:
            return INSIDE
        known = {root: self._place(root) for root in self._manifest.roots}
        root = find_root(folder, known, self._manifest.fields)
        if root is None:
            root = f"r{max((int(name[1:]) for name in known), default=0) + 1}"
            bare = folder.name
            try:
                check_relative(bare, "root")
            except StudyError:
                bare = ""
            self._replace(roots={**self._manifest.roots, root: bare})
        if known.get(root) != folder:
            self.remember_root(root, folder)
        return root

    def remember_root(self, root_id: str, folder: str | Path) -> None:
        """Say where the images of a root lie on this machine; also allowed for a read-only study."""
        if root_id not in self._manifest.roots:
            raise StudyError(f"{self.path}: has no root {root_id[:40]!r}; it has {', '.join(self._manifest.roots)}.")
        self._places[root_id] = Path(folder).resolve()
        try:
            locations.remember(self.id, root_id, self._places[root_id])
        except OSError:
            return  # a user without a writable home: known for this session

    def _place(self, root: str) -> Path | None:
        """Folder of a root on this machine, as far as known."""
        if root not in self._places:
            self._places.update(
                {name: at for name, at in locations.recall(self.id).items() if name not in self._places}
            )
        return self._places.get(root)

    def locate(self, field: FieldRecord | str) -> Path:
        """Return the image file of a field on this machine.

        Raises
        ------
        StudyError
            If it is not found; the message says how to name its folder.
        """
        record = self.field(field) if isinstance(field, str) else field
        check_relative(record.file, f"{self.path}: field {record.id}")
        if record.root == INSIDE:
            path, place = inside(self.path, record.file), self.path
        else:
            known = self._place(record.root)
            title = self._manifest.roots.get(record.root) or record.root
            if known is None:
                raise StudyError(
                    f"{self.path}: the folder {title!r} with the image {record.file!r} is not known on this machine. "
                    f"Run again with that folder as input, or call study.remember_root({record.root!r}, FOLDER)."
                )
            path, place = known / record.file, known
        if not path.is_file():
            raise StudyError(
                f"{path}: the image of field {record.id!r} is gone. Connect its disk or put it back into {place}; if "
                f"it was moved, call study.remember_root({record.root!r}, FOLDER) or run again with its new folder."
            )
        return path

    def read_field(self, field_id: str) -> Smear:
        """Open the image of a field; its pixels are read when they are asked for."""
        return read_smear(self.locate(field_id))

    def keep_picture(self, name: str, pixels: NDArray[np.uint8], pixel_size_um: float | None = None) -> Path:
        """Store a picture that exists only in memory as ``fields/NAME.png`` and return its path.

        Parameters
        ----------
        name : str
            Wanted name; made portable. A file with other pixels is not overwritten.
        pixels : ndarray
            (Y, X, 3) uint8.
        pixel_size_um : float, optional
            Micrometres a pixel, stored in the file.
        """
        self.ensure_writable()
        folder = self.path / "fields"
        with disk_errors(folder):
            folder.mkdir(exist_ok=True)
        taken: list[str] = []
        while True:
            path = folder / f"{make_id(name, taken)}.png"
            if not path.exists():
                with disk_errors(path):
                    write_picture(path, pixels, pixel_size_um)
                return path
            stored = read_smear(path)
            if stored.image.shape == pixels.shape and np.array_equal(np.asarray(stored.image), pixels):
                return path
            taken.append(path.stem)

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
        """Return the bitmaps of the cells of a field."""
        return load_masks(self.masks_path(field_id))[0]

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
        """The cell table with all human acts in it; the same object each time, with no row when there is none yet."""
        with self._guard:
            if self._cells is None:
                path = inside(self.path, CELLS)
                adata = celltable.read_cells(path) if path.exists() else celltable.empty_cells()
                self.orphans = journal.apply(self._acts().entries, adata.obs)
                self._cells = adata
            return self._cells

    def reload(self) -> None:
        """Forget what is in memory, so that a read-only study shows what the writer has done since."""
        with self._guard:
            self._cells, self._journal, self._numbers = None, None, None
            self._manifest = manifest.read_manifest(self.path)

    def save_cells(self, adata: AnnData) -> None:
        """Replace the cell table, whole or not at all; `adata` becomes `cells`.

        Columns of `celltable.COLUMNS` that are missing are filled, human acts are applied again, and the highest
        number ever given in each field is kept, so that `next_number` never gives one twice.
        """
        self.ensure_writable()
        with self._guard:
            numbers = self._last_numbers()
            if adata.is_view:
                adata = adata.copy()
            adata.obs = celltable.complete(adata.obs)
            self.orphans = journal.apply(self._acts().entries, adata.obs)
            numbers = celltable.highest_numbers(adata.obs["cell_id"], numbers)
            celltable.write_cells(self.path / CELLS, adata, numbers)
            self._numbers, self._cells = numbers, adata

    def next_number(self, field_id: str) -> int:
        """Return the first number that no cell of this field, deleted ones included, ever had."""
        return self._last_numbers().get(self.field(field_id).id, 0) + 1

    def _last_numbers(self) -> dict[str, int]:
        """Highest number ever given in each field."""
        if self._numbers is None:
            path = inside(self.path, CELLS)
            self._numbers = celltable.read_numbers(path) if path.exists() else {}
        return dict(self._numbers)

    # Human acts

    def label(self, cell_ids: CellIds, value: str) -> journal.Entry | None:
        """Give cells a class by hand; an empty `value` takes the hand label away. Returns the journal's entry."""
        check_text(value, "label")
        when = journal.now()
        by, at = (journal.user(), when) if value else ("", "")
        return self._act("label", cell_ids, {"label": value, "label_by": by, "label_at": at}, when)

    def exclude(self, cell_ids: CellIds, value: bool = True) -> journal.Entry | None:
        """Leave cells out of every count, or take them back with False."""
        return self._act("exclude", cell_ids, {"excluded": bool(value)})

    def set_review(self, cell_ids: CellIds, value: bool = True) -> journal.Entry | None:
        """Mark cells as looked at by a person."""
        return self._act("review", cell_ids, {"reviewed": bool(value)})

    def delete(self, cell_ids: CellIds, value: bool = True) -> journal.Entry | None:
        """Mark cells as none at all; their rows and ids stay."""
        return self._act("delete", cell_ids, {"deleted": bool(value)})

    def undo(self) -> journal.Entry | None:
        """Take the last act back, in this session or an earlier one; None if there is none."""
        return self._invert("undo")

    def redo(self) -> journal.Entry | None:
        """Do again what `undo` took back; None if there is nothing."""
        return self._invert("redo")

    @property
    def can_undo(self) -> bool:
        """Whether there is an act that `undo` would take back."""
        with self._guard:
            return self._acts().to_undo() is not None

    @property
    def can_redo(self) -> bool:
        """Whether there is an act that `redo` would do again."""
        with self._guard:
            return self._acts().to_redo() is not None

    def _act(
        self, op: str, cell_ids: CellIds, new: dict[str, journal.Value], when: str | None = None
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
            old = {column: obs[column].to_numpy()[rows].tolist() for column in new}
            entry = self._acts().append(
                op, wanted, old, {column: [value] * len(wanted) for column, value in new.items()}, when=when
            )
            journal.apply([entry], obs)
            return entry

    def _invert(self, op: Literal["undo", "redo"]) -> journal.Entry | None:
        """Write the inverse of the act on top of a stack and set it in the table."""
        self.ensure_writable()
        with self._guard:
            acts = self._acts()
            target = acts.to_undo() if op == "undo" else acts.to_redo()
            if target is None:
                return None
            entry = acts.invert(op, target)
            journal.apply([entry], self.cells.obs)
            return entry

    def _acts(self) -> journal.Journal:
        """Return the journal, read once."""
        if self._journal is None:
            self._journal = journal.Journal.read(inside(self.path, EDITS))
        return self._journal
