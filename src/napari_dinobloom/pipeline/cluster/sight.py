"""Whether all workers see what the one who asks sees: the study's folder, and the same version of this package."""

from __future__ import annotations

import importlib.metadata
import socket
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.atomic import disk_errors

PACKAGES = ("napari-dinobloom", "torch", "numpy")
"""What decides the numbers, and has to be the same everywhere."""


def check_sight(client: Any, study: Path) -> None:
    """Raise InputError, before any work, where a worker does not see the folder of a study or has other versions.

    A file is written into the folder, and each worker says what it reads in it and writes one beside it.
    """
    token = uuid.uuid4().hex
    mark = study / f".seen-{token[:8]}"
    with disk_errors(study):
        mark.write_text(token, encoding="utf-8")
    try:
        answers = client.run(_seen, str(mark), on_error="return")
    finally:
        with suppress(OSError):
            mark.unlink()
    mine = versions()
    for address, answer in answers.items():
        where = f"The worker {address}"
        if isinstance(answer, BaseException):
            if isinstance(answer, ImportError):
                raise InputError(f"{where} has no napari-dinobloom ({answer}). Install it there, in the same version.")
            raise InputError(f"{where} cannot be used ({type(answer).__name__}: {answer}).") from answer
        host, found, theirs, problem = answer
        if found != token:
            raise InputError(
                f"{where} on {host} does not see {study} ({problem or 'another file lies there'}). Put the study and "
                "its images on a file system that all nodes share under the same path."
            )
        if problem:
            raise InputError(f"{where} on {host} may not write into {study} ({problem}). Give it the right to.")
        if differ := [f"{name} {theirs[name]}, here {mine[name]}" for name in PACKAGES if theirs[name] != mine[name]]:
            raise InputError(f"{where} on {host} has {'; '.join(differ)}. Use one environment for all.")


def versions() -> dict[str, str]:
    """Version of each package that decides the numbers."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def _seen(mark: str) -> tuple[str, str, dict[str, str], str]:
    """What a worker finds: its host, the text of the file, its versions, and what it may not do."""
    path, own = Path(mark), Path(f"{mark}-{uuid.uuid4().hex[:8]}")
    try:
        found = path.read_text(encoding="utf-8")
    except OSError as error:
        return socket.gethostname(), "", versions(), str(error.strerror or error)
    try:
        own.touch()
        own.unlink()
    except OSError as error:
        return socket.gethostname(), found, versions(), str(error.strerror or error)
    return socket.gethostname(), found, versions(), ""
