"""The figures of the DinoBloom paper (``published.csv``), beside those that were measured."""

from __future__ import annotations

from importlib.resources import files

import pandas as pd

from napari_dinobloom.errors import InputError
from napari_dinobloom.predict.protocols.result import Evaluation

CITATION = "Koch et al., MICCAI 2024, arXiv:2404.05022, Tables 2 and 3"

COMPARED = ("weighted_f1", "balanced_accuracy", "accuracy")

NOT_CLAIMED = "ABMIL is not claimed: the split and the checkpoint behind its published figures are not known."


def published_figures() -> pd.DataFrame:
    """Read the published figures: ``dataset method encoder metric value sd``, in percent."""
    with files(__package__).joinpath("published.csv").open(encoding="utf-8") as handle:
        return pd.read_csv(handle, comment="#")


def compare(found: Evaluation, layout: str, encoder: str) -> pd.DataFrame:
    """Put the published row beside the measured one.

    Parameters
    ----------
    found : Evaluation
        What was measured.
    layout : str
        Data set, ``acevedo``, ``bmc`` or ``hehr``.
    encoder : str
        Name of the encoder. One of the paper's is compared with its own row, any other with those of DinoBloom.

    Returns
    -------
    DataFrame
        ``method metric measured`` in percent, a column for each published encoder, and ``difference`` in points where
        it is one. NaN where nothing was published.

    Raises
    ------
    InputError
        If the paper has no figures for the data set.
    """
    known = published_figures()
    known = known[known["dataset"] == layout]
    if known.empty:
        raise InputError(
            f"The paper gives no figures for a data set laid out as {layout!r}. Leave --table out, or name the layout "
            "(--layout acevedo, bmc or hehr) if it is one of the paper's."
        )
    own = [name for name in known["encoder"].unique() if name.casefold() == encoder.casefold()]
    shown = own or [name for name in known["encoder"].unique() if name.startswith("DinoBloom")]
    table = found.metrics.loc[found.metrics["metric"].isin(COMPARED), ["method", "metric", "value"]]
    table = table.assign(measured=100 * table.pop("value")).reset_index(drop=True)
    for name in shown:
        row = known[known["encoder"] == name].set_index(["method", "metric"])["value"]
        table[name] = row.reindex(pd.MultiIndex.from_frame(table[["method", "metric"]])).to_numpy()
    if own:
        table["difference"] = table["measured"] - table[own[0]]
    return table
