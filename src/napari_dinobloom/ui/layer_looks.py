"""How layers of ours look, as `napari_dinobloom.io.view` keeps it, and layers that come back look so again. No Qt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_dinobloom.io.study import Study
from napari_dinobloom.io.view import LayerView, View
from napari_dinobloom.ui.images import TAG, tag

if TYPE_CHECKING:
    from napari_dinobloom.ui.layers import LayerData

ROLES = ("image", "cells")
BLENDINGS = ("translucent", "translucent_no_depth", "additive", "minimum", "opaque", "multiplicative")


def _is_pair(value: object) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_is_number, value)) and value[0] < value[1]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and bool(np.isfinite(value))


LOOK: dict[str, Callable[[Any], bool]] = {
    "name": lambda value: isinstance(value, str) and 0 < len(value) <= 200,
    "visible": lambda value: isinstance(value, bool),
    "opacity": lambda value: _is_number(value) and 0 <= value <= 1,
    "blending": lambda value: value in BLENDINGS,
    "gamma": lambda value: _is_number(value) and 0.1 <= value <= 10,
    "contrast_limits": _is_pair,
    "contour": lambda value: isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 1000,
}
"""Properties of a layer that are kept, and whether a value can be one."""


def layer_views(layers: Iterable[Any], study: Study | None) -> tuple[LayerView, ...]:
    """How the layers of a study look, from the lowest to the topmost; those of the user are left out."""
    found = []
    for layer in layers:
        mark = tag(layer)
        if study is not None and mark.get("role") in ROLES and mark.get("study") == str(study.path):
            look = {name: _plain(getattr(layer, name)) for name in LOOK if hasattr(layer, name)}
            found.append(LayerView(mark["role"], tuple(mark["fields"]), look))
    return tuple(found)


def arranged(built: Sequence[LayerData], view: View) -> list[LayerData]:
    """Layers of a study as they were shown: in that order, with those properties; new ones on top.

    A picture that was not there then, since its file had been moved, comes right below its cells.

    Parameters
    ----------
    built : sequence of LayerData
        Layers of ours, before they are added; their metadata has the mark of `napari_dinobloom.ui.images.tag`.
    view : View
        As the study was left.
    """
    placed: list[tuple[float, LayerData]] = []
    for data, meta, kind in built:
        mark = meta["metadata"][TAG]
        at = next((i for i, one in enumerate(view.layers) if _same(one, mark)), len(view.layers))
        if at < len(view.layers):
            look = {name: value for name, value in view.layers[at].look.items() if name in LOOK and LOOK[name](value)}
            contour = look.pop("contour", None)
            if kind == "labels":
                look = {name: value for name, value in look.items() if name not in ("gamma", "contrast_limits")}
                mark = mark | ({} if contour is None else {"contour": contour})
            meta = {**meta, **look, "metadata": {**meta["metadata"], TAG: mark}}
        placed.append((at if at < len(view.layers) else _new_place(view, mark), (data, meta, kind)))
    return [layer for _, layer in sorted(placed, key=lambda one: one[0])]


def _new_place(view: View, mark: Mapping[str, Any]) -> float:
    """Where a layer goes that the view has not: a picture below its own cells, if these are there; else on top."""
    cells = {**mark, "role": "cells"}
    over = (at - 0.5 for at, one in enumerate(view.layers) if mark["role"] == "image" and _same(one, cells))
    return next(over, len(view.layers))


def _same(one: LayerView, mark: Mapping[str, Any]) -> bool:
    """Whether a layer is the one of a view; fields may have gone from it."""
    return one.role == mark["role"] and bool(mark["fields"]) and set(mark["fields"]) <= set(one.fields)


def _plain(value: Any) -> Any:
    """A property as JSON can hold it."""
    if isinstance(value, str):
        return str(value)
    return [float(one) for one in value] if isinstance(value, (list, tuple)) else value
