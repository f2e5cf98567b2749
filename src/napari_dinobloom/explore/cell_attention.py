"""How much each cell weighs in the predicted group of its patient, as it stands in the cell table.

``obsm["attention"]`` has a column for each group, named ``group_1``, ``group_2``, ... as names of groups may be such
that no HDF5 file takes them; these names, and the model, stand in ``uns["dinobloom"]["attention"]``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray

ATTENTION = "attention"
"""Name of the frame in ``obsm`` and of its note in ``uns["dinobloom"]``."""


def attention_of(adata: AnnData, model: str = "") -> pd.DataFrame | None:
    """Return the attention of each cell, a column for each group under its name.

    Parameters
    ----------
    adata : AnnData
        The cell table.
    model : str
        File name of the model whose attention is wanted; "" for any.

    Returns
    -------
    DataFrame or None
        None where there is none, or it is another model's: a process was killed between the table and its result.
    """
    frame = adata.obsm.get(ATTENTION)
    if not isinstance(frame, pd.DataFrame):
        return None
    note = adata.uns.get("dinobloom", {}).get(ATTENTION)
    if note is None:  # of another program
        return frame
    about = json.loads(str(note))
    if (model and about["model"] != model) or len(about["groups"]) != frame.shape[1]:
        return None
    return frame.set_axis(about["groups"], axis=1)


@contextmanager
def keeping_attention(adata: AnnData, values: NDArray[np.float32], groups: Sequence[str], model: str) -> Iterator[None]:
    """Put attention, (n, groups), into the table; what was there before comes back where the block fails."""
    notes = dict(adata.uns.get("dinobloom", {}))
    before = adata.obsm.get(ATTENTION)
    names = [f"group_{number}" for number in range(1, len(groups) + 1)]
    adata.obsm[ATTENTION] = pd.DataFrame(values, index=adata.obs_names, columns=names)
    about = json.dumps({"model": model, "groups": list(groups)}, ensure_ascii=False)
    adata.uns["dinobloom"] = {**notes, ATTENTION: about}
    try:
        yield
    except BaseException:
        adata.uns["dinobloom"] = notes
        if before is None:
            del adata.obsm[ATTENTION]
        else:
            adata.obsm[ATTENTION] = before
        raise
