"""Whether an encoder learned from the pictures that it is judged on, as far as this is known."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from napari_dinobloom.encoders.splits import held_out
from napari_dinobloom.io.datasets import DATASETS

_PBC_NAME = re.compile(r"([A-Z]+)_\d+\.jpe?g", re.IGNORECASE)


def cautions(encoder: str, layout: str, asked: Sequence[str]) -> list[str]:
    """Say in words why figures of an encoder on a data set may flatter.

    Parameters
    ----------
    encoder : str
        Its name.
    layout : str
        Data set, as `layouts.LAYOUTS` names it.
    asked : sequence of str
        Files that are asked about.

    Returns
    -------
    list of str
        Empty where nothing is known against it, which is no proof.
    """
    if encoder == "starter":
        named = [name for name in map(_as_trained, asked) if name]
        if len(named) > len(asked) / 2:
            unseen = sum(map(held_out, named))
            return [
                "The starter encoder learned the classes of about 6,500 pictures of this data set (PBC, Acevedo et al. "
                f"2020). Of the {len(asked)} pictures asked about, {unseen} are certain not to be among them. These "
                "figures are no external validation."
            ]
    if encoder.startswith("DinoBloom") and layout in ("bmc", "hehr"):
        return [
            f"{encoder} saw the training part of this data set, without labels; in the paper only Acevedo is external."
        ]
    return []


def _as_trained(file: str) -> str:
    """A picture of PBC as the starter's label table spells it, ``""`` if it has no such name."""
    name = PurePosixPath(file).name
    found = _PBC_NAME.fullmatch(name)
    label = DATASETS["acevedo"].labels.get(found[1].upper(), "") if found else ""
    return f"pbc/{label}/{name}" if label else ""
