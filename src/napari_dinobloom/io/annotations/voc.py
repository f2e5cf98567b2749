"""Pascal VOC: one XML file an image, one ``object`` with a ``bndbox`` a cell.

VOC counts pixels from 1 and its corners belong to the box (Everingham et al., The PASCAL VOC development kit, 2012).
The files are parsed without entities and without document types, so that they can neither read other files nor grow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.annotations.marks import Flaw, Mark, Marks, mark_of_box, read_text, sift

ENDINGS = (".xml",)
CORNERS = ("ymin", "xmin", "ymax", "xmax")
_DEEPEST = 20


def read_voc(path: Path, size: tuple[int, int]) -> Marks:
    """Read the boxes of one VOC file; see `read_annotations`."""
    objects = _Objects(path)
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda tag, _: objects.open(tag, parser.CurrentLineNumber)
    parser.EndElementHandler = objects.close
    parser.CharacterDataHandler = objects.add
    parser.StartDoctypeDeclHandler = objects.refuse
    parser.buffer_text = True
    try:
        parser.Parse(read_text(path), True)
    except expat.ExpatError as error:
        raise InputError(f"{path}: is no complete XML file ({error}). Export it again.") from error
    if objects.root != "annotation":
        raise InputError(f"{path}: begins with <{objects.root[:40]}>, not <annotation>. Give Pascal VOC files.")
    stated = (objects.size.get("height", ""), objects.size.get("width", ""))
    if stated not in (("", ""), ("0", "0"), (str(size[0]), str(size[1]))):
        raise InputError(
            f"{path}: was made for an image of {stated[1][:9]} x {stated[0][:9]} pixels, this one has "
            f"{size[1]} x {size[0]}. Give the file of this image."
        )
    return sift(path, size, objects.entries(), _mark)


def _mark(where: str, values: dict[str, str]) -> Mark:
    """Cell of one object."""
    missing = [name for name in CORNERS if name not in values]
    if missing:
        raise Flaw(f"has no <{missing[0]}>. Add it, or delete the object.")
    try:
        y0, x0, y1, x1 = (float(values[name]) for name in CORNERS)
    except ValueError as error:
        raise Flaw(f"a corner is no number ({error}). Correct or delete the object.") from error
    if x1 <= x0 or y1 <= y0:
        raise Flaw(
            f"the box from x {x0:g} to {x1:g}, y {y0:g} to {y1:g} has no area. Draw it again or delete the object."
        )
    return mark_of_box(where, values.get("name"), y0 - 1, x0 - 1, y1, x1)


@dataclass(slots=True)
class _Objects:
    """What the parser has seen: texts below ``size`` and below each ``object``."""

    path: Path
    root: str = ""
    size: dict[str, str] = field(default_factory=dict)
    found: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    _stack: list[str] = field(default_factory=list)
    _text: list[str] = field(default_factory=list)

    def refuse(self, *_: object) -> None:
        """Stop at a document type, which is where entities are declared."""
        raise InputError(
            f"{self.path}: declares a document type (<!DOCTYPE>), which no VOC file needs. Remove that line."
        )

    def open(self, tag: str, line: int) -> None:
        """Note where an object begins."""
        self.root = self.root or tag
        self._stack.append(tag)
        self._text = []
        if len(self._stack) > _DEEPEST:
            raise InputError(f"{self.path}, line {line}: is nested too deeply for a VOC file.")
        if self._stack[1:] == ["object"]:
            self.found.append((line, {}))

    def add(self, text: str) -> None:
        """Keep the text of the innermost element."""
        self._text.append(text)

    def close(self, tag: str) -> None:
        """Store the text of an element that is one of ours."""
        above, text = self._stack[1:-1], "".join(self._text).strip()
        if above == ["size"]:
            self.size[tag] = text
        elif above in (["object"], ["object", "bndbox"]) and (tag == "name" or tag in CORNERS):
            self.found[-1][1][tag] = text
        self._stack.pop()
        self._text = []

    def entries(self) -> Iterator[tuple[str, dict[str, str]]]:
        """Objects with their places."""
        for number, (line, values) in enumerate(self.found, start=1):
            yield f"object {number} (line {line})", values
