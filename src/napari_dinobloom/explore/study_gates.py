"""The gates of a study: trees replayed from its journal, changed together with it, over its cell table.

The tree that `StudyGates.tree` gives is that of the map in use; those of kept maps are there by their hash. A change of
the tree and its line in the journal are one act: where the disk refuses the line, the tree stays as it was.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from napari_dinobloom.errors import StudyError
from napari_dinobloom.explore.gate_axes import active_projection, axes_table, kept_table
from napari_dinobloom.explore.gate_statistics import GateStatistics, GateTables
from napari_dinobloom.explore.gate_tree import Act, GateTree
from napari_dinobloom.explore.gates.base import Gate, GateError, Mask, column

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_dinobloom.io.study import Study

Edit = Callable[[GateTree], Act | Sequence[Act]]
"""Changes a tree and returns what it did."""


@dataclass(slots=True)
class _Read:
    """The cell table as it was read, and what tells whether it is still that."""

    adata: AnnData
    version: int
    places: object
    projection: str
    table: pd.DataFrame
    patients: tuple[str, ...]
    statistics: GateStatistics | None = None
    counted: tuple[GateTree, int] | None = None
    tables: GateTables | None = None


class StudyGates:
    """The gates of an open study.

    Parameters
    ----------
    study : Study
        Its journal is read and, by `do`, written. Undo and redo are the study's own; what they did is seen at once.
    """

    def __init__(self, study: Study) -> None:
        self.study = study
        self._trees: dict[str, GateTree] = {}
        self._replayed: dict[str, int] = {}
        self._read: _Read | None = None

    @property
    def projection(self) -> str:
        """Hash of the map in use; "" where the study has none."""
        return active_projection(self.study.cells)

    @property
    def tree(self) -> GateTree:
        """The gates of the map in use, as the journal has them now. Change them by `do` only."""
        return self.tree_of(self.projection)

    @property
    def version(self) -> int:
        """Last line of the journal that changed `tree`, 0 for none."""
        projection = self.projection
        self.tree_of(projection)
        return self._replayed[projection]

    @property
    def projections(self) -> tuple[str, ...]:
        """Hashes of all maps that have gates."""
        return tuple(one for one in self.study.gate_projections if len(self.tree_of(one)))

    def tree_of(self, projection: str) -> GateTree:
        """Return the gates of a map, as the journal has them now.

        Raises
        ------
        StudyError
            A line of the journal cannot be put into the tree; it is named.
        """
        tree, done = self._trees.get(projection), self._replayed.get(projection, 0)
        if tree is None:
            tree, done = GateTree(projection), 0
        for entry in self.study.gate_entries(projection, after=done):
            try:
                tree.replay(entry.gate_act())
            except GateError as error:
                self._forget(projection)
                raise StudyError(
                    f"{self.study.path}: act {entry.seq} of the journal edits.jsonl: {error} Move its line into "
                    "another file to open the gates without it."
                ) from error
            done = entry.seq
        self._trees[projection], self._replayed[projection] = tree, done
        return tree

    def do(self, edit: Edit) -> Act:
        """Change the tree of the map in use, and write that into the journal as one act.

        Parameters
        ----------
        edit : callable
            Is given the tree and returns the act, or the acts, of its methods: ``lambda tree: tree.rename("g1", "x")``.

        Returns
        -------
        dict
            The act; nothing is written where it changes nothing.

        Raises
        ------
        GateError
            The tree refuses, or a gate is drawn on a column that the table does not have or that holds no numbers.
        StudyError
            Nothing may be written. The tree is as before in each case.
        """
        self.study.ensure_writable()
        projection = self.projection
        tree = self.tree_of(projection)
        try:
            done = edit(tree)
            act = merged([done] if isinstance(done, Mapping) else done, projection)
            if act["old"] != act["new"]:
                self._check(tree, act)
                self._replayed[projection] = self.study.record_gate(act).seq
        except BaseException:
            self._forget(projection)  # read from the journal again at the next use
            raise
        return act

    def _check(self, tree: GateTree, act: Act) -> None:
        """Refuse gates that cannot be counted: they would keep all others from being counted."""
        for key, node in act["new"].items():
            before = act["old"][key]
            if node is not None and (before is None or before["gate"] != node["gate"]):
                for axis in tree[key].gate.needs:
                    column(self.table, axis, tree[key].gate.name)

    def add(self, gate: Gate, *, parent: str = "", seen: Sequence[str] | None = None, colour: str | None = None) -> str:
        """Add a gate, by default with nobody having noted who was looked at; return its key."""
        act = self.do(lambda tree: tree.add(gate, parent=parent, seen=seen, colour=colour))
        return str(next(iter(act["new"])))

    def refresh(self) -> None:
        """Read table and journal anew at the next use."""
        self._read = None
        self._trees.clear()
        self._replayed.clear()

    def _forget(self, projection: str) -> None:
        self._trees.pop(projection, None)
        self._replayed.pop(projection, None)

    @property
    def table(self) -> pd.DataFrame:
        """The cells with all columns that gates are drawn on, see `axes_table`; made again when the cells change."""
        return self._now().table

    @property
    def patients(self) -> tuple[str, ...]:
        """Patients of the table, sorted: those whose cells are in view when all cells are."""
        return self._now().patients

    def _now(self) -> _Read:
        """Return the table as it is, read once."""
        adata, known = self.study.cells, self._read
        state = (self.study.cells_version, adata.obsm.get("X_umap"), active_projection(adata))
        if known is None or known.adata is not adata or known.places is not state[1]:
            known = None
        if known is None or (known.version, known.projection) != (state[0], state[2]):
            table = axes_table(adata)
            patients = tuple(sorted(set(table["patient"]))) if "patient" in table else ()
            known = self._read = _Read(adata, *state, table, patients)
        return known

    def masks(self, projection: str | None = None) -> dict[str, Mask]:
        """Say which cells each gate holds, as `GateTree.masks`; of the map in use or a kept one.

        Raises
        ------
        GateError
            A column is missing or holds no numbers, or the table does not hold that map.
        """
        if projection is None or projection == self.projection:
            return self.tree.masks(self.table)
        return self.tree_of(projection).masks(kept_table(self.study.cells, projection))

    def statistics(self) -> GateTables | None:
        """Count the gates of the map in use; None where there is no gate. Computed again where something changed."""
        read, tree = self._now(), self.tree
        if not len(tree):
            return None
        state = (tree, self.version)
        if read.counted != state or read.tables is None:
            read.tables, read.counted = self._statistics().tables(tree), state
        return read.tables

    def totals(self) -> dict[str, tuple[int, int, int]]:
        """Cells of each gate of the map in use, of its parent and of all, as `GateStatistics.totals`."""
        tree = self.tree
        return self._statistics().totals(tree) if len(tree) else {}

    def _statistics(self) -> GateStatistics:
        """Return the counter over the table as it is."""
        read = self._now()
        if read.statistics is None:
            read.statistics = GateStatistics(read.table)
        return read.statistics

    def with_gates(self, adata: AnnData) -> AnnData:
        """Write into a cell table which gates of the map in use each cell is in.

        Parameters
        ----------
        adata : AnnData
            Cells of the study; changed. ``obsm["gates"]`` becomes a DataFrame with a bool column for each gate, called
            by its names from the top, `` > `` between them, and ``uns["dinobloom"]["gates"]`` the tree as JSON text.

        Returns
        -------
        AnnData
            The same object.
        """
        tree = self.tree
        if not len(tree):
            adata.obsm.pop("gates", None)
            return adata
        columns: dict[str, Mask] = {}
        for key, mask in tree.masks(axes_table(adata)).items():
            columns[column_name(tree, key, columns)] = np.asarray(mask)
        adata.obsm["gates"] = pd.DataFrame(columns, index=adata.obs_names)
        notes = dict(adata.uns.get("dinobloom", {}))
        adata.uns["dinobloom"] = {**notes, "gates": json.dumps(tree.to_dict(), ensure_ascii=False)}
        return adata

    def copy_to(self, other: StudyGates, keys: Sequence[str] | None = None, *, parent: str = "") -> Act:
        """Copy gates with their children into another study that uses the same map; return its act.

        Parameters
        ----------
        other : StudyGates
            Of the other study.
        keys : sequence of str, optional
            Which; by default all.
        parent : str
            Gate of the other study to put them under.

        Raises
        ------
        GateError
            There is no gate, the other study uses another map, or a gate is called as one that is there.
        """
        return other.take(self.tree, keys, parent=parent)

    def take(self, tree: GateTree, keys: Sequence[str] | None = None, *, parent: str = "") -> Act:
        """Copy the gates of a tree, such as one that was read from a file; as `copy_to`."""
        chosen = tree.children("") if keys is None else tuple(keys)
        if not chosen:
            raise GateError("There is no gate to copy. Draw one first.")
        return self.do(lambda own: tree.copy_to(own, chosen, parent=parent))


def merged(acts: Sequence[Act], projection: str = "") -> Act:
    """Return one act that does what several in order do."""
    old: dict[str, Any] = {}
    new: dict[str, Any] = {}
    for act in acts:
        projection = act["projection"]
        old.update({key: node for key, node in act["old"].items() if key not in old})
        new.update(act["new"])
    return {"op": "gate", "projection": projection, "old": old, "new": new}


def free_name(tree: GateTree, name: str, parent: str = "") -> str:
    """Return a name that no gate below `parent` has: this one, or with a number behind it."""
    taken = {tree[key].gate.name for key in tree.children(parent)}
    return next(one for one in (name, *(f"{name} {i}" for i in range(2, len(taken) + 3))) if one not in taken)


def column_name(tree: GateTree, key: str, taken: Mapping[str, object]) -> str:
    """Name of a gate's column in ``obsm["gates"]``: its path without the ``/`` that HDF5 cannot hold in a name."""
    name = tree.path(key).replace("/", " > ")
    return f"{name} ({key})" if name in taken or not name.strip(". ") else name
