"""Counting schemes: which lines a differential has, and which classes each line holds.

A scheme is a YAML file; those of the published data sets and the five-part differential come with the program
(`schemes.yaml`). The classes of the taxonomy are the hub: two schemes are mapped onto each other through them. A file
is read as data only, within bounds of size and depth, and without references, which could make a small file huge.
"""

from __future__ import annotations

import difflib
import functools
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from napari_dinobloom.cells.taxonomy import BY_NAME, UNCLASSIFIED, describe
from napari_dinobloom.errors import InputError

BUNDLED = Path(__file__).with_name("schemes.yaml")
MOST_BYTES = 100_000
DEEPEST = 6
"""Levels of a YAML file; a scheme has four."""
MOST_LINES = 60
LONGEST = 60
"""Letters of a name or title."""

Place = Literal["", "denominator", "per 100", "excluded"]
PLACES: tuple[Place, ...] = ("denominator", "per 100", "excluded")


@dataclass(frozen=True, slots=True)
class SchemeClass:
    """One line of a scheme.

    Attributes
    ----------
    name : str
        What stands in the column ``class`` of a differential.
    title : str
        Name for readers.
    members : tuple of str
        Classes that the line holds, its own name among them; the first decides how it counts if `count` is "".
    count : {"", "denominator", "per 100", "excluded"}
        Where the line stands; "" by the rule of the specimen (`report.counting`).
    code : str
        What the data set calls the class; "" for none.
    """

    name: str
    title: str
    members: tuple[str, ...]
    count: Place = ""
    code: str = ""


@dataclass(frozen=True, slots=True)
class Scheme:
    """A counting scheme.

    A class that no line holds is never dropped and never hidden in another: it counts by the rule of the specimen and
    keeps a line of its own, with the note "not in the scheme". A blast in a five-part differential stays a blast.

    Attributes
    ----------
    name, title, source : str
        Its key, its name for readers, and where it comes from.
    classes : tuple of SchemeClass
        Lines in their order.
    """

    name: str
    title: str
    source: str
    classes: tuple[SchemeClass, ...]

    def line(self, name: str) -> SchemeClass | None:
        """The line that holds class `name`, None if no line does."""
        return next((line for line in self.classes if name in line.members), None)

    def named(self, name: str) -> str:
        """Name of the line that class `name` is counted in: its own where no line holds it."""
        line = self.line(name)
        return name if line is None else line.name

    def read(self, text: str) -> str | None:
        """Class or line that somebody means by `text`: a code, name or title in any case; None if nothing is meant."""
        for given in ("code", "name", "title"):
            for line in self.classes:
                if _same(getattr(line, given), text):
                    return line.name
        return read_class(text, (member for line in self.classes for member in line.members))

    def facts(self) -> list[Any]:
        """Plain values that stand for what the scheme does, for the key of a step."""
        return [asdict(line) for line in self.classes]


def load_scheme(name_or_path: str | Path) -> Scheme:
    """Load a scheme that comes with the program, or one of your own.

    Parameters
    ----------
    name_or_path : str or Path
        One of `scheme_names`, or a YAML file.

    Raises
    ------
    InputError
        If there is no such scheme or file, the file is no YAML, too large or too deep, or a scheme in it is wrong: no
        class, a key or class that is not known (the nearest is named), a class in two lines, or a line of classes that
        count differently without saying where it stands.
    """
    asked = str(name_or_path)
    if asked in _bundled():
        return _scheme(asked, _bundled()[asked], BUNDLED.name)
    path = Path(name_or_path).expanduser()
    if path.suffix.lower() not in (".yaml", ".yml"):
        near = nearest(asked, scheme_names())
        raise InputError(
            f"{asked[:200]!r} is no counting scheme{near}; use {', '.join(scheme_names())} or a .yaml file."
        )
    return _scheme(path.stem, _document(path), path.name)


def scheme_names() -> list[str]:
    """Schemes that come with the program."""
    return list(_bundled())


def translate(label: str, source: Scheme, target: Scheme) -> str:
    """Line of `target` for a label of `source` (code, name or title); a class that `target` lacks keeps its name.

    Raises
    ------
    InputError
        If `source` does not know the label.
    """
    found = source.read(label)
    if found is None:
        raise InputError(f"{label!r} is no class of the scheme {source.name}{nearest(label, _words(source))}.")
    return target.named(found)


def read_class(text: str, known: Iterable[str] = ()) -> str | None:
    """Class that somebody means by `text`: name or title of the taxonomy or of `known`, in any case; else None."""
    names = dict.fromkeys([*known, *BY_NAME])
    exact = [name for name in names if _same(name, text)] or [n for n in names if _same(describe(n).title, text)]
    return exact[0] if exact else None


def _same(one: str, other: str) -> bool:
    """Whether two names are one but for case, underscores and spaces."""
    folded = [" ".join(text.replace("_", " ").split()).casefold() for text in (one, other)]
    return bool(folded[0]) and folded[0] == folded[1]


def _words(scheme: Scheme) -> list[str]:
    """All that `Scheme.read` understands, for a hint."""
    return [word for line in scheme.classes for word in (line.code, line.name, line.title) if word]


def nearest(word: object, known: Collection[str]) -> str:
    """`; did you mean ...?` for a word that is not known, or nothing."""
    near = difflib.get_close_matches(str(word), known, 1)
    return f"; did you mean {near[0]!r}?" if near else ""


@functools.cache
def _bundled() -> dict[str, Any]:
    """Schemes of the program as they stand in its file."""
    return cast(dict[str, Any], _document(BUNDLED))


def _document(path: Path) -> Any:
    """What a YAML file says, as plain values; raises InputError for one that is no such file or out of bounds."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path}: a counting scheme has at most {MOST_BYTES:,} bytes; this file has more.")
        text = path.read_text(encoding="utf-8")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                raise InputError(f"{path}: holds a reference (*{event.anchor}); write it out.")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise InputError(f"{path}: nested deeper than {DEEPEST} levels; a counting scheme has four.")
        _check_keys(yaml.compose(text, Loader=yaml.SafeLoader), path)
        return yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a counting scheme ({error}).") from error


def _check_keys(node: yaml.Node | None, path: Path) -> None:
    """Raise for a key that is given twice, of which YAML would silently take the last."""
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if str(key.value) in seen:
                raise InputError(f"{path}: line {key.start_mark.line + 1} gives the key {key.value!r} again.")
            seen.add(str(key.value))
            _check_keys(value, path)
    elif isinstance(node, yaml.SequenceNode):
        for part in node.value:
            _check_keys(part, path)


def _scheme(name: str, content: object, where: str) -> Scheme:
    """Check what a file says and make a scheme of it; `where` is the file's name, for messages."""
    fields = _fields(content, ("title", "source", "own", "classes"), f"{where}: scheme {name}")
    own = tuple(_text(word, f"{where}: own") for word in _list(fields.get("own"), f"{where}: own"))
    lines = fields.get("classes")
    if isinstance(lines, list):
        words = [_text(word, f"{where}: classes") for word in lines]
        if again := [word for word in words if words.count(word) > 1]:
            raise InputError(f"{where}: scheme {name} names {again[0]!r} twice.")
        lines = dict.fromkeys(words)
    if not isinstance(lines, dict) or not lines:
        raise InputError(f"{where}: scheme {name} has no classes; list them under the key 'classes'.")
    if len(lines) > MOST_LINES:
        raise InputError(f"{where}: scheme {name} has {len(lines)} classes; at most {MOST_LINES} are read.")
    classes = tuple(_line(key, value, own, where) for key, value in lines.items())
    holder: dict[str, str] = {}
    for line in classes:
        for member in line.members:
            if member in holder:
                raise InputError(
                    f"{where}: class {member!r} stands in {holder[member]!r} and in {line.name!r}; a cell counts once: "
                    "take it out of one of them (a line also holds the class of its own name)."
                )
            holder[member] = line.name
    title, source = (_text(fields.get(key, ""), f"{where}: {key}", 300, empty=True) for key in ("title", "source"))
    return Scheme(name, title or name, source, classes)


def _line(key: object, content: object, own: tuple[str, ...], where: str) -> SchemeClass:
    """One line of a scheme out of its entry."""
    name = _text(key, f"{where}: classes")
    here = f"{where}: class {name}"
    fields = _fields({} if content is None else content, ("title", "members", "count", "code"), here)
    given = [_text(word, f"{here}: members") for word in _list(fields.get("members"), f"{here}: members")]
    for member in given or [name]:
        if member not in BY_NAME and member not in own:
            known = [*BY_NAME, *own]
            hint = nearest(member, known) or "; name its members, or list a class of your own under 'own'."
            raise InputError(f"{here}: {member!r} is no class{hint}")
    if len(set(given)) < len(given):
        raise InputError(f"{here}: members name a class twice.")
    count = fields.get("count", "")
    if count not in ("", *PLACES):
        raise InputError(f"{here}: count is {count!r}; use {' or '.join(PLACES)}{nearest(count, PLACES)}")
    members = tuple(dict.fromkeys([*given, name]))
    _check_place(members, tuple(given or [name]), count, here)
    title = _text(fields.get("title", ""), f"{here}: title", empty=True)
    code = _text(fields.get("code", ""), f"{here}: code", empty=True)
    return SchemeClass(name, title or describe(name).title, members, count, code)


def _check_place(members: tuple[str, ...], given: tuple[str, ...], count: str, here: str) -> None:
    """Raise for a line whose place is open or would falsify the count."""
    if UNCLASSIFIED in members and (len(members) > 1 or count):
        raise InputError(
            f"{here}: {UNCLASSIFIED} is a line of its own and stays in the denominator: leaving out cells that nobody "
            "named, or calling them something, makes other classes look larger or smaller than they are."
        )
    kinds = {"smudge" if m == "smudge_cell" else describe(m).group for m in given}
    if len(kinds) > 1 and not count:
        raise InputError(
            f"{here}: its members count differently ({', '.join(given)}); say where the line stands with "
            f"'count: {' | '.join(PLACES)}'."
        )
    if count == "denominator" and {"platelet", "artefact"} & kinds:
        raise InputError(f"{here}: platelets and artefacts cannot be in the denominator of nucleated cells.")


def _fields(content: object, known: tuple[str, ...], here: str) -> dict[str, Any]:
    """A mapping with known keys only."""
    if not isinstance(content, dict):
        raise InputError(f"{here}: {str(content)[:60]!r} stands where keys are expected: {', '.join(known)}.")
    for key in content:
        if key not in known:
            hint = nearest(key, known)
            raise InputError(f"{here}: {str(key)[:60]!r} is no key{hint or '; keys are ' + ', '.join(known) + '.'}")
    return content


def _list(content: object, here: str) -> list[object]:
    """A list, empty where nothing is given."""
    if content is None:
        return []
    if not isinstance(content, list):
        raise InputError(f"{here}: {str(content)[:60]!r} is no list; write [one, other].")
    return content


def _text(content: object, here: str, longest: int = LONGEST, *, empty: bool = False) -> str:
    """Plain text on one line. YAML reads `no` and `1e3` as other things: they have to be in quotes."""
    if not isinstance(content, str) or not content.isprintable() or not (empty or content.strip()):
        raise InputError(f"{here}: {str(content)[:60]!r} is no name; write plain text, in quotes if in doubt.")
    if len(content) > longest:
        raise InputError(f"{here}: {content[:30]!r}... is longer than {longest} letters.")
    return content.strip()
