"""What windows are going to need, loaded in a second thread when the first of them opens, not when a person waits."""

from __future__ import annotations

from functools import cache
from threading import Thread

from napari.layers import Shapes

from napari_dinobloom.ui.preferences import preferences
from napari_dinobloom.ui.torch_loading import load_beside


@cache
def get_ready() -> Thread:
    """Begin to load, once in a process; what is asked for meanwhile is loaded as ever."""
    thread = Thread(target=_load, name="napari-dinobloom getting ready")
    thread.start()
    return thread


def _load() -> None:
    """Read the preferences, 0.2 s as napari looks through all plugins; then what draws outlines, compiled by numba.

    Last torch, which nearly every job needs: a job that finds it loaded begins two seconds sooner.
    """
    preferences()
    Shapes()
    load_beside()
    import torch  # noqa: F401
