"""The known group of each patient of a study, as people gave it: the file ``groups.csv`` of the study folder.

It is a table with the columns ``patient`` and ``group``, replaced whole at every change, so that what was typed is on
the disk at once, and `napari-dinobloom mil train --groups` takes it as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.trust import check_text, inside

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study

FILE = "groups.csv"
LONGEST = 80
"""Characters of the name of a group."""


def groups_of(study: Study) -> dict[str, str]:
    """Return the group of each patient that has one, by patient; none where the study has no such file.

    Raises
    ------
    GateError
        If the file cannot be read or puts a patient into two groups.
    """
    from napari_dinobloom.explore.gate_comparison import read_groups

    path = _file(study)
    return read_groups(path) if path.is_file() else {}


def keep_groups(study: Study, groups: Mapping[str, str]) -> dict[str, str]:
    """Replace the groups of a study; they are on the disk when this returns.

    Parameters
    ----------
    study : Study
        Open for writing.
    groups : mapping
        Patient to group; white space around a name goes, and an empty group is none. Patients without a cell in the
        study are kept, too.

    Returns
    -------
    dict
        What was written.

    Raises
    ------
    InputError, StudyError
        If a name is longer than 80 characters or not printable, or nothing may be written. Nothing has changed then.
    """
    import pandas as pd

    from napari_dinobloom.io.tables import write_csv

    study.ensure_writable()
    kept = {patient: " ".join(group.split()) for patient, group in groups.items()}
    kept = {patient: check_text(group, "group") for patient, group in sorted(kept.items()) if group}
    for patient, group in kept.items():
        if len(group) > LONGEST:
            raise InputError(f"The group {group[:40]!r}... of patient {patient!r} is longer than {LONGEST} characters.")
    write_csv(_file(study), pd.DataFrame({"patient": list(kept), "group": list(kept.values())}, dtype=object))
    return kept


def _file(study: Study) -> Path:
    return inside(study.path, FILE)
