"""The sub-commands of ``napari-dinobloom weights``: which encoders there are, and bringing them onto this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from napari_dinobloom.console import DONE, SOME_FAILED, accepting, mendable, tell, watch
from napari_dinobloom.errors import InputError

if TYPE_CHECKING:
    from napari_dinobloom.encoders.inventory import Holding
    from napari_dinobloom.encoders.library import Located
    from napari_dinobloom.progress import Steps

weights_app = typer.Typer(help="Encoders and their weights.", no_args_is_help=True)

STATES = {
    "absent": "not here",
    "bundled": "in the package",
    "verified": "here, as published",
    "unverified": "here, unverified",
    "imported": "here, your own",
    "unchecked": "here, not checked yet",
    "wrong": "here, WRONG",
}
"""What the list says of `inventory.State`."""

EncoderName = Annotated[str, typer.Argument(help="Encoder by name, as `weights list` shows it, or timm:NAME.")]
Carried = Annotated[Path | None, typer.Option("--from", help="Take the file from here instead of the network.")]
AcceptLicence = Annotated[bool, typer.Option("--accept-licence", help="Accept the terms; else you are asked once.")]


@weights_app.command("list")
def weights_list() -> None:
    """List the encoders that are known, and whether their weights are on this machine."""
    with mendable():
        from napari_dinobloom.encoders.inventory import holdings

        heads = ("name", "D", "parameters", "size", "access", "weights", "licence")
        rows = [heads, *(_row(holding) for holding in holdings())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        for row in rows:
            tell("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@weights_app.command("download")
def weights_download(
    name: EncoderName,
    carried: Carried = None,
    accept_licence: AcceptLicence = False,
    all_sources: Annotated[
        bool, typer.Option("--all-sources", help="Fetch every published file, as for a mirror.")
    ] = False,
    base_url: Annotated[
        str | None, typer.Option("--base-url", help="Folder on your own server that holds the files.")
    ] = None,
) -> None:
    """Fetch the weights of an encoder and check them; a broken-off download goes on where it stopped."""
    with mendable():
        if carried and (all_sources or base_url):
            raise InputError("--from takes one file of this machine: leave --all-sources and --base-url out.")

        from napari_dinobloom.encoders.fetch import iter_fetch, iter_fetch_all

        def steps(accepted: bool) -> Steps[list[Path]]:
            if all_sources:
                return iter_fetch_all(name, accept_licence=accepted, base_url=base_url)
            return _listed(iter_fetch(name, source=carried, accept_licence=accepted, base_url=base_url))

        for path in accepting(lambda accepted: watch(steps(accepted)), accept_licence):
            tell(path)


@weights_app.command("verify")
def weights_verify(
    name: Annotated[str | None, typer.Argument(help="Encoder by name; without one, all that are here.")] = None,
    repin: Annotated[
        str | None, typer.Option("--repin", help="Take the file of this encoder, as it is now, for the right one.")
    ] = None,
) -> None:
    """Hash the weights that are here and compare; exit code 1 where a file is not the right one."""
    with mendable():
        from napari_dinobloom.encoders.inventory import iter_repin, iter_verify

        if repin is not None:
            if name is not None:
                raise InputError(f"--repin {repin} names its encoder itself: leave {name} out.")
            sha256 = watch(iter_repin(repin))
            tell(f"{repin}: {sha256 or 'the next file that comes'} is the right one from now on")
            return
        held = watch(iter_verify(name))
        for holding in held:
            tell(f"{holding.spec.name}: {STATES[holding.state]}, sha256 {holding.sha256}, {holding.path}")
            if holding.problem:
                tell(f"  {holding.problem}")
        if not held:
            tell("No weights are on this machine beside those of the package.")
    raise typer.Exit(SOME_FAILED if any(holding.problem for holding in held) else DONE)


@weights_app.command("import")
def weights_import(
    file: Annotated[Path, typer.Argument(help="A checkpoint of your own, in any of the known shapes.")],
    name: Annotated[str, typer.Option("--name", help="What it shall be called.")],
    copy: Annotated[bool, typer.Option("--copy", help="Copy it into the cache folder; else it stays where it is.")] = (
        False
    ),
    positions: Annotated[
        Literal["hub", "training", "timm"] | None,
        typer.Option(help="How position embeddings of another picture size are resampled."),
    ] = None,
    like: Annotated[
        str | None,
        typer.Option(help="Encoder, or timm:NAME, whose network it holds and for which pictures are prepared alike."),
    ] = None,
    accept_licence: AcceptLicence = False,
) -> None:
    """Register a checkpoint of your own under a name that --encoder understands."""
    with mendable():
        from napari_dinobloom.encoders.imports import iter_import

        def register(_: bool) -> Located:
            return watch(iter_import(file, name, copy=copy, positions=positions, like=like))

        tell(f"{name}: {accepting(register, accept_licence).path}")


@weights_app.command("export")
def weights_export(
    name: Annotated[str, typer.Argument(help="Encoder by name, or the path of a file of weights.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The file to write.")],
    shape: Annotated[
        Literal["zenodo", "bare", "timm", "training"],
        typer.Option(help="As Zenodo (.pth), Hugging Face (.bin), timm (.safetensors) or our training has it."),
    ],
) -> None:
    """Write the weights of an encoder in another published shape, for other programs."""
    with mendable():
        from napari_dinobloom.encoders.release import export_weights

        export_weights(name, output, shape)
        tell(f"{name}: {output}")


@weights_app.command("path")
def weights_path(name: EncoderName) -> None:
    """Print the file of an encoder."""
    with mendable():
        from napari_dinobloom.encoders.library import locate

        tell(locate(name).path)


def _row(holding: Holding) -> tuple[str, ...]:
    """One line of the list."""
    spec = holding.spec
    size = holding.path.stat().st_size if holding.path else next((s.size for s in spec.sources if s.size), None)
    access = "on request" if spec.gated else "terms" if spec.terms else "free"
    parameters = f"{spec.parameters / 1e6:,.1f} M"
    weight = f"{size / 1e6:,.0f} MB" if size else "?"
    return spec.name, str(spec.dim), parameters, weight, access, STATES[holding.state], spec.licence


def _listed(steps: Steps[Path]) -> Steps[list[Path]]:
    path = yield from steps
    return [path]


def register(app: typer.Typer) -> None:
    """Add the commands of this module to the program."""
    app.add_typer(weights_app, name="weights")
