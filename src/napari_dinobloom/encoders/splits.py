"""Which labelled pictures no starter training ever sees: one rule, shared by training and atlas."""

from __future__ import annotations

from hashlib import sha256

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
