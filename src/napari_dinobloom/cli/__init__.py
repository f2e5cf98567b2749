"""The command line: one sub-command per step, all of them calling the library's own functions."""

from __future__ import annotations

import typer

from napari_dinobloom.cli import atlas, count, evaluate, extras, gate, map, mil, steps, train, weights

app = typer.Typer(
    rich_markup_mode=None,  # its tables cut names of options off in a narrow terminal
    name="napari-dinobloom",
    help="Find, embed, map, name and count white blood cells in smear images. Research use, not for diagnosis.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for part in (steps, count, extras, evaluate, atlas, weights, gate, map, mil, train):
    part.register(app)


def main() -> None:
    """Entry point of the command ``napari-dinobloom``."""
    app()
