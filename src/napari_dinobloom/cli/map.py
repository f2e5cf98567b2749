"""The sub-commands ``map`` and ``cohort``: the maps of a study, and new patients on a reference cohort's map."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from napari_dinobloom.cli.options import MinDist, MoreInputs, Neighbours, Seed, StudyFolder
from napari_dinobloom.console import DONE, accepting, console, mendable, summarise, tell, watch
from napari_dinobloom.errors import InputError
from napari_dinobloom.words import number_of

if TYPE_CHECKING:
    from napari_dinobloom.pipeline.maps import StoredMap

Method = Annotated[Literal["umap", "pca"] | None, typer.Option("--method", help="pca: two principal components.")]
Subset = Annotated[int | None, typer.Option("--subset", help="Cells that are fitted; the others are placed.")]
Groups = Annotated[
    Literal["slide", "patient"] | None,
    typer.Option("--restandardise", help="Take out what a stain adds to all cells of a slide or patient."),
]
Refit = Annotated[bool, typer.Option("--refit", help="Make a new map; the one in use is kept with its gates.")]
Use = Annotated[str | None, typer.Option("--use", help="Use this map: first characters of its hash, or a file.")]
Listed = Annotated[bool, typer.Option("--list", help="Only show the maps that the study holds.")]
Coordinates = Annotated[
    Path | None, typer.Option("--coordinates", help="Your own instead: CSV with cell_id and two columns.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    app.command("map")(map_)
    app.command("cohort")(cohort)


def map_(
    study: StudyFolder,
    inputs: MoreInputs = None,
    neighbours: Neighbours = None,
    min_dist: MinDist = None,
    seed: Seed = None,
    method: Method = None,
    subset: Subset = None,
    restandardise: Groups = None,
    refit: Refit = False,
    use: Use = None,
    coordinates: Coordinates = None,
    listed: Listed = False,
) -> None:
    """Lay out the map of all cells. On a map with gates, new cells are placed; --refit makes another map."""
    asked: dict[str, Any] = {"neighbours": neighbours, "min_dist": min_dist, "seed": seed}
    asked |= {"map_method": method, "map_subset": subset, "restandardise": restandardise}
    with mendable():
        _check(refit, use, coordinates, listed, {**asked, "inputs": inputs or None})
        if listed:
            _list(study)
        elif refit or use or coordinates:
            _change(study, use, coordinates, asked)
        else:
            from napari_dinobloom.pipeline.driver import iter_outcome

            def attempt(accepted: bool) -> Any:
                return watch(iter_outcome(inputs or [], study, until="map", **asked, accept_licence=accepted or None))

            raise typer.Exit(summarise(accepting(attempt)))
    raise typer.Exit(DONE)


def cohort(
    table: Annotated[
        Path, typer.Argument(help="CSV with columns file, patient, diagnosis: a picture of a cell a row.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Figure: .png, .pdf, .svg or .jpg.")],
    new: Annotated[
        list[str] | None, typer.Option("--new", help="New patient, may be repeated; else one of each diagnosis.")
    ] = None,
    colour: Annotated[Literal["diagnosis", "class"], typer.Option(help="What colours mean.")] = "diagnosis",
    encoder: Annotated[str, typer.Option("--encoder", help="Encoder by name, or a file of weights.")] = "starter",
    device: Annotated[str, typer.Option(help="auto, cpu, mps, cuda.")] = "auto",
    precision: Annotated[Literal["auto", "float32", "bf16"], typer.Option(help="Number format.")] = "auto",
    seed: Annotated[int, typer.Option(help="Seed of the map.")] = 42,
    save_map: Annotated[Path | None, typer.Option(help="Keep the cohort's map: NAME.safetensors.")] = None,
    on: Annotated[Path | None, typer.Option("--on", help="The cohort's map of an earlier figure.")] = None,
    accept_licence: Annotated[bool, typer.Option("--accept-licence", help="Accept the encoder's terms.")] = False,
) -> None:
    """Show new patients' cells on the map of a reference cohort."""
    asked: dict[str, Any] = dict(locals())
    del asked["accept_licence"]
    with mendable():
        from napari_dinobloom.pipeline.cohort import CohortFigure, iter_cohort_figure

        figure = CohortFigure(**asked | {"new": tuple(new or ())})
        for path in accepting(lambda _: watch(iter_cohort_figure(figure)), accept_licence):
            tell(path)


def _check(refit: bool, use: str | None, coordinates: Path | None, listed: bool, asked: dict[str, Any]) -> None:
    """Refuse what excludes each other."""
    ways = [("--refit", refit), ("--use", use), ("--coordinates", coordinates), ("--list", listed)]
    given = [name for name, value in ways if value]
    others = [name for name, value in asked.items() if value is not None]
    if len(given) > 1:
        raise InputError(f"{given[0]} and {given[1]} exclude each other: give one of them.")
    if (given and given != ["--refit"] and others) or (refit and asked["inputs"]):
        raise InputError(f"{given[0]} takes a map as it is: leave {others[0].replace('_', '-')} out.")


def _change(path: Path, use: str | None, coordinates: Path | None, asked: dict[str, Any]) -> None:
    """Fit a new map or use another one."""
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.pipeline.map_changes import iter_refit, iter_use

    with Study.open(path) as study:
        if use:
            projection = watch(iter_use(study, use))
        else:
            projection = watch(iter_refit(study, coordinates=coordinates, **asked))
        tell(f"In use: map {projection.hash[:8]}, {len(projection)} cells fitted. Run again to renew the report.")


def _list(path: Path) -> None:
    """Print the maps of a study, a line each; the one in use has a star."""
    from napari_dinobloom.io.study import Study
    from napari_dinobloom.pipeline.maps import stored_maps

    with Study.open(path, read_only=True) as study:
        for one in stored_maps(study):
            console.print(_line(one), markup=False, highlight=False)
        if not stored_maps(study):
            tell("There is no map yet.")


def _line(one: StoredMap) -> str:
    """Describe a map."""
    names = ("n_neighbors", "min_dist", "metric", "seed", "subset", "restandardise")
    params = " ".join(f"{name}={one.params[name]}" for name in names if one.params.get(name))
    state = "kept as it is" if one.frozen else "follows the cells" if one.active else "kept"
    cells, gates = number_of(one.cells, "cell"), number_of(one.gates, "gate")
    return f"{'*' if one.active else ' '} {one.hash[:8]}  {one.kind}  {cells}  {gates}  {state}  {params}"
