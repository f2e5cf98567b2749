"""How a person left a study: which fields were shown and how, what was selected and coloured, where the camera stood.

``view.json`` in the study, by user, or where the study may not be written a file in the user's own data folder. It is
no part of the study's data: nothing is computed from it, copies leave it out, and one that cannot be read is passed
over. The last view of somebody else is the one that a user without a view of his own gets.
"""

from __future__ import annotations

import json
import logging
import math
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io import manifest
from napari_dinobloom.io.atomic import write_text
from napari_dinobloom.io.journal import now, user
from napari_dinobloom.io.locations import home
from napari_dinobloom.io.trust import inside

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study

FILE = "view.json"
SCHEMA = 1
MOST_CELLS = 20_000
"""Selected cells that are kept; of a larger selection none."""
_MAX_BYTES = 1 << 24
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LayerView:
    """One layer of the study as it was shown.

    Attributes
    ----------
    role : str
        ``image`` or ``cells``.
    fields : tuple of str
        The fields in it.
    look : dict
        Properties of the layer, plain values; whoever uses one checks it.
    """

    role: str = ""
    fields: tuple[str, ...] = ()
    look: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """A study as it was left.

    Attributes
    ----------
    selected, shown : tuple of str
        Cell ids, as the session has them.
    focus, colour_by, population, gate, reader : str
        As the session has them.
    blind : bool
        As the session has it.
    axes : tuple of str
        Columns of the map, two.
    layers : tuple of LayerView
        From the lowest to the topmost.
    closed : tuple of str
        Fields whose layer was taken away.
    centre, angles, point : tuple of float
        Camera, and the place on every axis, in the units of the world.
    zoom : float
        Canvas pixels per unit; 0 for none.
    ndisplay : int
        2 or 3.
    choices : dict
        What windows were set to, plain values by window.
    """

    selected: tuple[str, ...] = ()
    shown: tuple[str, ...] = ()
    focus: str = ""
    colour_by: str = "class"
    population: str = ""
    gate: str = ""
    reader: str = ""
    blind: bool = False
    axes: tuple[str, ...] = ("umap_1", "umap_2")
    layers: tuple[LayerView, ...] = ()
    closed: tuple[str, ...] = ()
    centre: tuple[float, ...] = ()
    angles: tuple[float, ...] = ()
    point: tuple[float, ...] = ()
    zoom: float = 0.0
    ndisplay: int = 2
    choices: dict[str, dict[str, Any]] = field(default_factory=dict)


def recall_view(study: Study) -> View:
    """Return how this user left a study, else how the last one did; a plain view where nobody or nothing readable is.

    May be called in a second thread.
    """
    mine: list[tuple[str, object]] = []
    last: object = None
    for path in _places(study):
        views = _read(path)
        mine += [(_text(view.get("at")), view) for name, view in views.items() if name == user()]
        last = next(reversed(views.values()), last)
    if mine:
        return parse_view(max(mine, key=lambda one: one[0])[1])
    return replace(parse_view(last), reader="", blind=False)


def keep_view(study: Study, view: View) -> bool:
    """Keep how this user leaves a study; whether it could be written.

    A view that a newer version left in the study is not touched: this user's own folder has ours then. May be called
    in a second thread; nothing waits for the disk to have it for good, as it can be done without.
    """
    own, common = _places(study)
    path = own if study.read_only or _newer(common) else common
    if len(view.selected) > MOST_CELLS or len(view.shown) > MOST_CELLS:
        view = replace(view, selected=(), shown=())
    views = {name: other for name, other in _read(path).items() if name != user()}
    content = {"schema": SCHEMA, "views": {**views, user(): {"at": now(), **asdict(view)}}}
    try:
        if path == own:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not (path.parent / manifest.NAME).is_file():  # renamed while it is open: nothing is made at the old place
            raise FileNotFoundError(f"{path.parent} is no study any more")
        write_text(path, json.dumps(content, ensure_ascii=False) + "\n", sync=False)
    except (OSError, TypeError, ValueError) as error:
        _log.warning("the view of %s cannot be kept: %s", study.path, error)
        return False
    return True


def parse_view(raw: object) -> View:
    """Make a view of what JSON holds; what is not of the right kind is as in a plain view."""
    if not isinstance(raw, dict):
        return View()
    read: dict[str, Callable[[object], Any]] = dict.fromkeys(("selected", "shown", "axes", "closed"), _texts)
    read |= dict.fromkeys(("focus", "colour_by", "population", "gate", "reader"), _text)
    read |= dict.fromkeys(("centre", "angles", "point"), _numbers)
    read |= {"blind": lambda one: one is True, "zoom": _number, "layers": _layers, "choices": _choices}
    read |= {"ndisplay": lambda one: 3 if one == 3 else 2}
    found: dict[str, Any] = {name: check(raw[name]) for name, check in read.items() if name in raw}
    view = View(**found)
    return view if len(view.axes) == 2 else replace(view, axes=View().axes)


def _places(study: Study) -> tuple[Path, Path]:
    """Files in which a view may be: the user's own, and that of the study."""
    return home() / "views" / f"{uuid.UUID(study.id)}.json", study.path / FILE


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Views by user; none where the file is missing, damaged or of another version."""
    content = _content(path)
    if content.get("schema") != SCHEMA or not isinstance(content.get("views"), dict):
        return {}
    return {str(name): view for name, view in content["views"].items() if isinstance(view, dict)}


def _newer(path: Path) -> bool:
    """Whether a newer version of this program wrote a file."""
    schema = _content(path).get("schema")
    return type(schema) is int and schema > SCHEMA


def _content(path: Path) -> dict[str, Any]:
    """What a file holds; nothing where it is missing or damaged."""
    try:
        inside(path.parent, path.name)
        if path.stat().st_size > _MAX_BYTES:
            return {}
        return _object(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError, StudyError):
        return {}


def _text(raw: object) -> str:
    return raw if isinstance(raw, str) else ""


def _texts(raw: object) -> tuple[str, ...]:
    whole = isinstance(raw, list) and len(raw) <= MOST_CELLS and all(isinstance(one, str) for one in raw)
    return tuple(raw) if whole and isinstance(raw, list) else ()


def _number(raw: object) -> float:
    sound = isinstance(raw, (int, float)) and not isinstance(raw, bool) and math.isfinite(raw)
    return float(raw) if sound and isinstance(raw, (int, float)) else 0.0


def _numbers(raw: object) -> tuple[float, ...]:
    return tuple(map(_number, raw)) if isinstance(raw, list) and len(raw) <= 16 else ()


def _layers(raw: object) -> tuple[LayerView, ...]:
    found = [one for one in raw if isinstance(one, dict)] if isinstance(raw, list) else []
    return tuple(
        LayerView(_text(one.get("role")), _texts(one.get("fields")), _object(one.get("look"))) for one in found
    )


def _choices(raw: object) -> dict[str, dict[str, Any]]:
    return {str(window): _object(chosen) for window, chosen in _object(raw).items()}


def _object(raw: object) -> dict[str, Any]:
    return raw if isinstance(raw, dict) else {}
