"""Which labelled pictures no starter training ever sees: one rule, shared by training and atlas."""

from __future__ import annotations

import re
from hashlib import sha256

from napari_dinobloom.io.datasets import DATASETS

_LEARNED_FROM = re.compile(r"(?:.*/)?(?P<file>(?P<label>[A-Z]+)_[0-9]{2,8}\.jpg)")
"""Files of PBC (Acevedo et al. 2020) as its archive names them: what the starter encoder was trained on."""

HELD_OUT_PERCENT = 15


def held_out(file: str) -> bool:
    """Tell whether a labelled picture is kept out of the training of the starter encoder.

    The rule depends on the file name alone, so that it is the same on every machine and in every
    order: the SHA-256 of the name, as an integer, modulo 100 is below 15.

    Parameters
    ----------
    file : str
        The picture's ``file`` entry exactly as the label table spells it ("pbc/basophil/BA_1.jpg").

    Returns
    -------
    bool
        True for about 15 of 100 names. Confusion, abstention threshold and distance limit of an atlas
        are measured on these pictures only.
    """
    return int(sha256(file.encode("utf-8")).hexdigest(), 16) % 100 < HELD_OUT_PERCENT


def unseen_by_starter(file: str) -> bool:
    """Tell whether the starter encoder that comes with the package never saw a picture in training.

    Parameters
    ----------
    file : str
        Its path as a table or a folder spells it.

    Returns
    -------
    bool
        As `held_out` for a picture of PBC, in whatever folder it lies; True for any other, whatever its hash.
    """
    found = _LEARNED_FROM.fullmatch(file)
    cell_type = DATASETS["acevedo"].labels.get(found["label"]) if found else None
    return found is None or cell_type is None or held_out(f"pbc/{cell_type}/{found['file']}")
