"""The whole way, from images to report, as one function that the command line and the widgets call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dinobloom.pipeline.settings import STEPS, RunSettings
from napari_dinobloom.progress import Steps, drain

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study

__all__ = ["STEPS", "RunSettings", "iter_run", "run"]


def run(inputs: str | Path | Sequence[str | Path], out: str | Path | Study, **settings: Any) -> Study:
    """Find, embed, map, name and count the white cells of images, and write the report.

    Running again does only what is missing or changed; a run that was stopped goes on where it was.

    Parameters
    ----------
    inputs : path or sequence of paths
        Files, folders (searched through) and globs of PNG, JPEG, TIFF, OME-TIFF and BMP images. May be empty for a
        study that exists.
    out : path or Study
        Study folder ``NAME.dinobloom``, made if it does not exist; or a study that is open for writing.
    **settings
        Fields of `RunSettings`; what is not given is as the study remembers it, else the default.
        Also ``until`` (str), the last step to do, one of `STEPS`; ``retry`` (bool), try pictures again that were set
        aside, as they could not be read or ended their workers; and where the work is done, the fields of
        `pipeline.cluster.options.ClusterOptions`: ``workers=8`` for processes of this machine (a script then needs its
        ``if __name__ == "__main__":``), ``scheduler="tls://host:8786"`` for those of a Dask scheduler.

    Returns
    -------
    Study
        Free for the next writer: all of it can be read, to change it open it with `Study.open`. Where `out` was an open
        study it is that one, still open. Inputs that could not be used are its fields with status ``failed``.

    Raises
    ------
    DinoBloomError
        If nothing can be done; the message says what to do about it. Nothing is lost.
    """
    return drain(iter_run(inputs, out, **settings))


def iter_run(inputs: str | Path | Sequence[str | Path], out: str | Path | Study, **settings: Any) -> Steps[Study]:
    """Twin of `run` that yields `Progress`, with the name of the step in it."""
    from napari_dinobloom.pipeline.driver import iter_outcome

    outcome = yield from iter_outcome(inputs, out, **settings)
    return outcome.study
