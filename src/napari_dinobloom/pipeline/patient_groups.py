"""The known group of each patient of a study, as people gave it: acts of the journal, and the table ``groups.csv``.

The table has the columns ``patient`` and ``group``: `napari-dinobloom mil train --groups` takes it as it is, and what
another program writes into it counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.trust import check_text

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study

LONGEST = 80
"""Characters of the name of a group."""


def groups_of(study: Study) -> dict[str, str]:
    """Return the group of each patient that has one, by patient.

    Raises
    ------
    InputError
        If the table cannot be read or puts a patient into two groups.
    """
    return study.groups()


def keep_groups(study: Study, groups: Mapping[str, str], *, who: str | None = None) -> dict[str, str]:
    """Replace the groups of a study, one act that `Study.undo` takes back; it is on the disk when this returns.

    Parameters
    ----------
    study : Study
        Open for writing.
    groups : mapping
        Patient to group; white space around a name goes, and an empty group is none. Patients without a cell in the
        study are kept, too.
    who : str, optional
        Reader who says so; else the user of this machine.

    Returns
    -------
    dict
        The groups of the study now.

    Raises
    ------
    InputError, StudyError
        If a name is longer than 80 characters or not printable, or nothing may be written. Nothing has changed then.
    """
    study.ensure_writable()
    kept = {patient: " ".join(group.split()) for patient, group in groups.items()}
    kept = {patient: check_text(group, "group") for patient, group in sorted(kept.items()) if group}
    for patient, group in kept.items():
        if len(group) > LONGEST:
            raise InputError(f"The group {group[:40]!r}... of patient {patient!r} is longer than {LONGEST} characters.")
    study.record_groups(dict.fromkeys(groups_of(study), "") | kept, who=who)
    return kept
