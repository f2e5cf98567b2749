"""The sub-commands of ``napari-dinobloom gate``: gates of a study drawn, counted, compared and handed on."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_dinobloom.cli.options import StudyFolder
from napari_dinobloom.console import console, mendable, tell
from napari_dinobloom.errors import InputError
from napari_dinobloom.words import number_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd

    from napari_dinobloom.explore.gate_tree import GateTree
    from napari_dinobloom.explore.gates import Gate
    from napari_dinobloom.explore.study_gates import StudyGates

gate_app = typer.Typer(help="Gates on the map of a study, or on its measurements.", no_args_is_help=True)

GateName = Annotated[str, typer.Argument(help="Gate by its key (g3) or path (right/large), as `gate list` shows them.")]
Parent = Annotated[str, typer.Option("--parent", help="Gate to put it under, by key or path; else at the top.")]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="CSV to write; else the main figures are shown.")]
Numbers = Annotated[str | None, typer.Option(help="Numbers with commas; an empty one is no bound: 0,")]
Type = Literal["polygon", "rectangle", "range", "ellipse", "quadrant", "and", "or", "not"]

LISTED = {"key": "key", "gate": "gate", "n": "cells", "percent_of_parent": "% of parent", "parent_low": "low",
          "parent_high": "high", "percent_of_all": "% of all"}  # fmt: skip
COMPARED = ("gate", "patients_a", "patients_b", "mean_a", "mean_b", "difference", "delta", "p", "p_bh", "exploratory")


@gate_app.command("list")
def gate_list(study: StudyFolder) -> None:
    """List the gates of the map in use with their cells, and the other maps that have gates."""
    with _opened(study, read_only=True) as gates:
        tables = gates.statistics()
        if tables is None:
            tell("No gate yet.")
        else:
            _show(tables.counts[tables.counts["level"] == "all"][list(LISTED)].rename(columns=LISTED))
        for projection in gates.projections:
            if projection != gates.projection:
                kept = number_of(len(gates.tree_of(projection)), "gate")
                tell(f"map {projection[:8] or '(none)'}: {kept}, not in use")


@gate_app.command("add")
def gate_add(
    study: StudyFolder,
    name: Annotated[str | None, typer.Option("--name", help="What it shall be called.")] = None,
    type_: Annotated[Type | None, typer.Option("--type", help="Its shape, or how --of are joined.")] = None,
    axes: Annotated[str | None, typer.Option(help="One or two columns: umap_1,umap_2")] = None,
    vertices: Annotated[str | None, typer.Option(help='Corners of a polygon: "0,0 1,0 1,1"')] = None,
    range_min: Numbers = None,
    range_max: Numbers = None,
    center: Numbers = None,
    half_axes: Numbers = None,
    angle: Annotated[float | None, typer.Option(help="Of an ellipse, degrees.")] = None,
    dividers: Numbers = None,
    quadrant: Annotated[Literal["++", "-+", "--", "+-"] | None, typer.Option(help="Which of the four.")] = None,
    of: Annotated[list[str] | None, typer.Option("--of", help="Gates to join, by key or path; repeat it.")] = None,
    json: Annotated[
        Path | None, typer.Option("--json", help="File with the gate as JSON, in place of all this.")
    ] = None,
    parent: Parent = "",
    seen: Annotated[
        list[str] | None,
        typer.Option("--seen", help="Patient who was looked at when it was made; repeat it. Else nobody knows."),
    ] = None,
) -> None:
    """Add a gate and print its key."""
    given = {
        "range_min": range_min,
        "range_max": range_max,
        "center": center,
        "half_axes": half_axes,
        "dividers": dividers,
    }
    with _opened(study) as gates:
        if json is not None:
            gate = _gate_of(json)
        else:
            numbers = {key: _numbers(key, value) for key, value in given.items() if value is not None}
            other = {"angle": angle, "quadrant": quadrant}
            fields: dict[str, Any] = {**numbers, **{key: value for key, value in other.items() if value is not None}}
            if axes is not None:
                fields["axes"] = [axis.strip() for axis in axes.split(",")]
            if vertices is not None:
                fields["vertices"] = [_numbers("vertices", one) for one in vertices.split()]
            if of:
                fields["gate_refs"] = [_key(gates.tree, one) for one in of]
            gate = _gate(name, type_, fields)
        tell(gates.add(gate, parent=_key(gates.tree, parent), seen=seen))


@gate_app.command("delete")
def gate_delete(study: StudyFolder, gate: GateName) -> None:
    """Delete a gate with all below it."""
    with _opened(study) as gates:
        key = _key(gates.tree, gate)
        tell(f"{number_of(len(gates.do(lambda tree: tree.delete(key))['new']), 'gate')} deleted")


@gate_app.command("rename")
def gate_rename(study: StudyFolder, gate: GateName, name: Annotated[str, typer.Argument(help="Its new name.")]) -> None:
    """Give a gate another name."""
    with _opened(study) as gates:
        key = _key(gates.tree, gate)
        gates.do(lambda tree: tree.rename(key, name))
        tell(f"{key}: {gates.tree.path(key)}")


@gate_app.command("stats")
def gate_stats(study: StudyFolder, out: Out = None) -> None:
    """Count every gate over all cells, per patient and per slide, with Wilson's intervals."""
    with _opened(study, read_only=True) as gates:
        from napari_dinobloom.explore.gate_export import INTERVALS
        from napari_dinobloom.io.tables import write_csv

        counts = _tables(gates).counts
        if out is None:
            _show(counts)
        else:
            write_csv(out, counts, comments=(INTERVALS,))
            tell(out)


@gate_app.command("compare")
def gate_compare(
    study: StudyFolder,
    groups: Annotated[Path, typer.Option("--groups", help="CSV with the columns patient, group; two groups.")],
    of: Annotated[Literal["parent", "all"], typer.Option(help="Shares of the parent's cells, or of all.")] = "parent",
    permutations: Annotated[int, typer.Option(min=1, help="Where there are too many divisions to try all.")] = 10_000,
    seed: Annotated[int, typer.Option(help="Of the permutations.")] = 0,
    out: Out = None,
) -> None:
    """Compare two groups of patients by every gate; the patient is the unit."""
    with _opened(study, read_only=True) as gates:
        from napari_dinobloom.explore.gate_comparison import compare_groups, write_comparison
        from napari_dinobloom.io.groups import read_groups

        chosen = read_groups(groups)
        found = compare_groups(_tables(gates).counts, gates.tree, chosen, of=of, permutations=permutations, seed=seed)
        if out is not None:
            write_comparison(out, found)
            tell(out)
            return
        first, second = sorted(set(chosen.values()))
        _show(found[list(COMPARED)])
        tell(f"a: {first}, b: {second}. p_bh: adjusted over the gates (Benjamini and Hochberg).")
        if found["exploratory"].any():
            tell("Exploratory: the gate was made while looking at these patients, or nobody noted at whom. Confirm it.")


@gate_app.command("suggest")
def gate_suggest(
    study: StudyFolder,
    axes: Annotated[str, typer.Option(help="Two columns.")] = "umap_1,umap_2",
    min_cluster_size: Annotated[int | None, typer.Option(min=5, help="Fewest cells of a cluster.")] = None,
    parent: Parent = "",
) -> None:
    """Add a gate around each dense cluster of cells, to be edited; undo takes all back at once."""
    with _opened(study) as gates:
        from napari_dinobloom.explore.study_gates import free_name
        from napari_dinobloom.explore.suggest import suggest_gates

        first, _, second = axes.partition(",")
        below, table = _key(gates.tree, parent), gates.table
        if below:
            inside = table.loc[gates.masks()[below]]
            inside.attrs = dict(table.attrs)
            table = inside
        found = suggest_gates(table, (first.strip(), second.strip()), min_cluster_size=min_cluster_size)
        if not found:
            raise InputError(f"{study}: no dense cluster was found there. Try a smaller --min-cluster-size.")
        patients = gates.patients

        def edit(tree: GateTree) -> list[dict[str, Any]]:
            return [
                tree.add(one.renamed(free_name(tree, one.name, below)), parent=below, seen=patients) for one in found
            ]

        for key in gates.do(edit)["new"]:
            tell(f"{key}: {gates.tree.path(key)}")


@gate_app.command("export")
def gate_export(
    study: StudyFolder,
    csv: Annotated[Path | None, typer.Option("--csv", help="Folder for counts, classes and means.")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="File for gates and statistics.")] = None,
    fcs: Annotated[Path | None, typer.Option("--fcs", help="File for cells with a channel per gate, FCS 3.1.")] = None,
    h5ad: Annotated[Path | None, typer.Option("--h5ad", help="Cell table with a bool column per gate.")] = None,
) -> None:
    """Write gates, their statistics, or cells with their gates."""
    with _opened(study, read_only=True) as gates:
        from napari_dinobloom.explore.gate_export import write_fcs, write_gate_csv, write_gate_json
        from napari_dinobloom.io.celltable import write_cells

        if csv is json is fcs is h5ad is None:
            raise InputError("Nothing to write: give --csv, --json, --fcs or --h5ad.")
        tables = _tables(gates)
        written = [*write_gate_csv(csv, tables)] if csv else []
        if json:
            write_gate_json(json, tables, gates.tree)
        if fcs:
            write_fcs(fcs, gates.table, gates=gates.tree)
        if h5ad:
            write_cells(h5ad, gates.with_gates(gates.study.cells.copy()))
        for path in (*written, *(path for path in (json, fcs, h5ad) if path)):
            tell(path)


@gate_app.command("import")
def gate_import(
    study: StudyFolder,
    file: Annotated[Path, typer.Argument(help="JSON that `gate export --json` wrote, of the same map.")],
    parent: Parent = "",
) -> None:
    """Take over the gates of a file."""
    with _opened(study) as gates:
        from napari_dinobloom.explore.gate_export import read_gate_json

        act = gates.take(read_gate_json(file), parent=_key(gates.tree, parent))
        tell(f"{number_of(len(act['new']), 'gate')} taken over")


@gate_app.command("copy")
def gate_copy(
    source: Annotated[Path, typer.Argument(help="Study to copy from.")],
    target: Annotated[Path, typer.Argument(help="Study to copy to; it must use the same map.")],
    gate: Annotated[list[str] | None, typer.Option("--gate", help="Only this one, by key or path; repeat it.")] = None,
) -> None:
    """Copy gates with those below them into another study on the same map."""
    with _opened(source, read_only=True) as gates, _opened(target) as other:
        keys = [_key(gates.tree, one) for one in gate] if gate else None
        tell(f"{number_of(len(gates.copy_to(other, keys)['new']), 'gate')} copied")


@contextmanager
def _opened(study: Path, *, read_only: bool = False) -> Iterator[StudyGates]:
    """Open a study and its gates; errors that a user can mend become one message."""
    with mendable():
        from napari_dinobloom.explore.study_gates import StudyGates
        from napari_dinobloom.io.study import Study

        with Study.open(study, read_only=read_only) as opened:
            yield StudyGates(opened)


def _key(tree: GateTree, name: str) -> str:
    """Key of a gate that is given by its key or path; "" for the top."""
    if not name or name in tree:
        return name
    paths = {tree.path(key): key for key in tree.keys}
    if name not in paths:
        from napari_dinobloom.explore.gates.base import nearest

        raise InputError(f"There is no gate {name!r}{nearest(name, paths)}. `gate list` shows those that are there.")
    return paths[name]


def _gate(name: str | None, type_: Type | None, fields: dict[str, Any]) -> Gate:
    """Build a gate of what was typed."""
    from napari_dinobloom.explore.gates import Gate

    if name is None or type_ is None:
        raise InputError("A gate needs --name and --type, or --json.")
    kind = type_.capitalize() + "Gate"
    if type_ in ("and", "or", "not"):
        kind, fields = "BooleanGate", {**fields, "bool_type": type_}
    if type_ == "range":
        fields = {key: value[0] if key.startswith("range") else value for key, value in fields.items()}
    return Gate.from_dict({"type": kind, "version": 1, "name": name, **fields})


def _gate_of(path: Path) -> Gate:
    import json

    from napari_dinobloom.explore.gates import Gate

    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}).") from error
    return Gate.from_dict(raw)


def _numbers(option: str, given: str) -> list[float | None]:
    """Numbers with commas between them; None for an empty one."""
    try:
        return [float(part) if part.strip() else None for part in given.split(",")]
    except ValueError as error:
        raise InputError(f"--{option.replace('_', '-')} {given!r}: {error}. Give numbers with commas.") from error


def _tables(gates: StudyGates) -> Any:
    """Statistics of a study that has gates."""
    tables = gates.statistics()
    if tables is None:
        raise InputError(f"{gates.study.path}: the map in use has no gate. Draw one, or let `gate suggest` do it.")
    return tables


def _show(table: pd.DataFrame) -> None:
    """Print a table as text."""
    console.print(table.round(3).to_string(index=False), markup=False, highlight=False)


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    app.add_typer(gate_app, name="gate")
