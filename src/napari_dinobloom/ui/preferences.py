"""What the user chose on the plugin's page of napari's preferences, and how it comes to act.

The page is declared in the manifest (``configurations``) and kept by napari. Before each job `apply` puts it to work
through the same environment variables that the command line obeys; one that the user set himself wins over the page.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from threading import Lock

import psutil

from napari_dinobloom.encoders.library import CACHE_VARIABLE
from napari_dinobloom.io.colours import VARIABLE as COLOURS_VARIABLE
from napari_dinobloom.io.download import OFFLINE_VARIABLE

PLUGIN = "napari-dinobloom"
THREADS_VARIABLE = "OMP_NUM_THREADS"

_reading = Lock()
_ours: dict[str, str] = {}
"""Environment variables of this process that the page set, and to what."""
_threads: list[int] = []
"""Threads that torch takes by itself: one for each core where it was loaded under a number of the page."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Preferences:
    """The page, with its defaults."""

    encoder: str = "starter"
    """Encoder that a window proposes for a study that has none yet: a name in the registry."""
    device: str = "auto"
    """Device that a window proposes: auto, cpu, cuda or mps."""
    threads: int = 0
    """Threads that the encoder takes on the CPU; 0 leaves it to torch."""
    cache_folder: str = ""
    """Where downloaded weights lie; empty for the system's cache folder."""
    offline: bool = False
    """No use of the network, not even where a download is asked for."""
    colours: str = ""
    """Table of the laboratory's own class colours for new studies; empty for the usual ones."""
    outline_width: float = 1.0
    """How wide cells are outlined in the image, against the usual width."""
    outline_opacity: float = 0.9
    """How opaque the outlines of a cell layer are when it comes, 0 to 1."""


def preferences() -> Preferences:
    """Read the page; its defaults where napari does not know it, as when the plugin's manifest is not installed."""
    try:
        from napari.settings import get_plugin_settings

        with _reading:  # the first time napari makes the pages, and two threads would make them twice
            page = get_plugin_settings(PLUGIN)
    except (ImportError, KeyError):
        return Preferences()
    return Preferences(
        encoder=page.encoder.name or "starter",
        device=page.encoder.device,
        threads=page.encoder.threads,
        cache_folder=page.privacy.cache_folder,
        offline=page.privacy.offline,
        colours=page.colours.classes,
        outline_width=page.colours.outline_width,
        outline_opacity=page.colours.outline_opacity,
    )


def apply() -> Preferences:
    """Put the page to work for what begins now, and return it. Call it on the main thread."""
    chosen = preferences()
    _set(CACHE_VARIABLE, chosen.cache_folder)
    _set(OFFLINE_VARIABLE, "1" if chosen.offline else "")
    _set(COLOURS_VARIABLE, chosen.colours)
    ours = THREADS_VARIABLE in _ours  # then torch may have been loaded with the number of the page
    _set(THREADS_VARIABLE, str(chosen.threads or ""))  # for a torch that is yet to be loaded
    if "torch" in sys.modules and (chosen.threads or _threads or ours):
        import torch

        if not _threads:
            _threads.append(_cores() if ours else torch.get_num_threads())
        torch.set_num_threads(chosen.threads or _threads.pop())
    return chosen


def _cores() -> int:
    """Cores that this process may use: the threads of a torch that nobody told otherwise."""
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    return min(psutil.cpu_count(logical=False) or allowed, allowed)


def _set(name: str, value: str) -> None:
    """Set a variable of the environment, or take away what was set here; the user's own stays as it is."""
    if os.environ.get(name) != _ours.get(name):
        return
    if value:
        os.environ[name] = _ours[name] = value
    elif _ours.pop(name, None) is not None:
        del os.environ[name]
