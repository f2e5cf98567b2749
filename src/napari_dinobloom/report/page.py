"""What all pages of a report share: templates that escape, the script and its hash, tables of facts, one file each.

A page holds no address but ``data:`` ones, those into itself and those of its neighbours in the same folder, and
forbids others by its own content security policy.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from napari_dinobloom.io.atomic import disk_errors, replacing

if TYPE_CHECKING:
    from jinja2 import Environment


@functools.cache
def environment() -> Environment:
    """The templates of this room, with escaping on for every one of them."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("napari_dinobloom.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def own_script() -> dict[str, object]:
    """Our one script, marked as not to be escaped, and the hash by which the page allows it and no other."""
    from markupsafe import Markup

    script = environment().get_template("script.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {"script": Markup(script), "script_hash": f"sha256-{digest}"}


@contextmanager
def page_file(path: Path) -> Iterator[TextIO]:
    """Open a page for writing that replaces `path` at the end, whole or not at all.

    Raises
    ------
    StudyError
        If the disk is full or the folder may not be written; `path` is then as it was.
    """
    with (
        disk_errors(path),
        replacing(path) as part,
        open(part, "w", encoding="utf-8", errors="backslashreplace", newline="\n") as handle,
    ):
        yield handle


def write_page(path: Path, template: str, context: Mapping[str, object]) -> Path:
    """Render a template with `context` into `path`, piece by piece; raises as `page_file`."""
    with page_file(path) as handle:
        for text in environment().get_template(template).generate(**context):
            handle.write(text)
    return path


Facts = list[tuple[str, list[tuple[str, str]]]]


def facts(chapters: Iterable[tuple[str, Mapping[str, object] | Sequence[tuple[str, object]]]]) -> Facts:
    """Title and rows of each table of facts; nested mappings are spread out, empty tables left out."""
    spread = [
        (title, list(_spread(rows)) if isinstance(rows, Mapping) else [(str(what), str(is_)) for what, is_ in rows])
        for title, rows in chapters
    ]
    return [(title, rows) for title, rows in spread if rows]


def _spread(values: Mapping[str, object], above: str = "") -> Iterator[tuple[str, str]]:
    """Rows of a nested mapping: "crop · fov_um", "25.0"."""
    for key, value in values.items():
        label = f"{above} · {key}" if above else str(key)
        if isinstance(value, Mapping):
            yield from _spread(value, label)
        elif isinstance(value, Sequence) and not isinstance(value, str):
            yield label, ", ".join(str(item) for item in value)
        elif isinstance(value, float):
            yield label, f"{value:.6g}"
        else:
            yield label, "–" if value is None or value == "" else str(value)
