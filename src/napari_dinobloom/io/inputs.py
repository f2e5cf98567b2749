"""What a user names as input: files, folders and globs; and how files are grouped into slides and patients."""

from __future__ import annotations

import csv
import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal

from napari_dinobloom.errors import InputError
from napari_dinobloom.io import fingerprint, omezarr, slides
from napari_dinobloom.io.trust import check_text, why_not_relative

ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", *slides.ENDINGS)
"""Endings of the pictures that are taken from folders and globs, in any case; beside these OME-Zarr folders."""

STUDY_ENDING = ".dinobloom"


@dataclass(frozen=True, slots=True, order=True)
class Source:
    """One image file.

    Attributes
    ----------
    path : Path
        Absolute path.
    root : Path
        Folder that the user named, or the file's own.
    file : str
        POSIX path below `root`.
    """

    path: Path
    root: Path
    file: str


@dataclass(frozen=True, slots=True)
class Problem:
    """An input that cannot be used.

    Attributes
    ----------
    name : str
        Input or file.
    message : str
        What is wrong and what to do.
    """

    name: str
    message: str


@dataclass(frozen=True, slots=True)
class Inputs:
    """What was found.

    Attributes
    ----------
    files : list of Source
        Sorted by path, each file once.
    problems : list of Problem
        Inputs that gave nothing.
    """

    files: list[Source]
    problems: list[Problem]


def find_images(inputs: Sequence[str | Path]) -> Inputs:
    """Find the pictures that a user names.

    Parameters
    ----------
    inputs : sequence of str or Path
        Files (of any ending), folders (searched with all below them, for `ENDINGS`; hidden files and studies are left
        out, links to folders not followed) and globs such as ``slides/*/*.png``. An OME-Zarr folder is one picture;
        pictures that a VMS slide consists of are none by themselves.

    Returns
    -------
    Inputs
        Whatever the order of `inputs`, the files come sorted by path and each only once.
    """
    found: dict[str, Source] = {}
    problems: list[Problem] = []
    for name in inputs:
        sources, why = _expand(str(name))
        if why:
            problems.append(Problem(str(name), why))
        for source in sources:
            reason = why_not_relative(source.file)
            if reason:
                problems.append(Problem(_printable(str(source.path)), f"its name {reason}. Rename it."))
            else:
                found.setdefault(os.path.realpath(source.path), source)
    return Inputs(sorted(found.values()), problems)


def _expand(name: str) -> tuple[list[Source], str]:
    """Files of one input, and why there are none."""
    path = Path(os.path.abspath(os.path.expanduser(name)))
    try:
        if path.is_dir() and not omezarr.is_picture(path):
            return _in_folder(path)
        if path.exists():
            return [Source(path, path.parent, path.name)], ""
    except OSError as error:
        return [], f"cannot be read ({error.strerror}). Check the name and who may read it."
    if glob.has_magic(name):
        return _in_glob(name)
    return [], "there is no such file or folder. Check the name, and that the disk is connected."


def _in_folder(folder: Path) -> tuple[list[Source], str]:
    """All pictures in a folder and below."""
    if _is_study(folder):
        return [], "is a study, not a folder of images. Open it, or name the images."
    sources: list[Source] = []
    denied: list[str] = []
    for place, folders, files in os.walk(folder, onerror=lambda error: denied.append(str(error.filename))):
        inner = [name for name in folders if not name.startswith(".") and not _is_study(Path(place, name))]
        folders[:] = sorted(name for name in inner if not name.lower().endswith(omezarr.ENDING))
        found = [name for name in inner if omezarr.is_picture(Path(place, name))]
        parts = _parts_of_slides(Path(place), files)
        for name in [*found, *(name for name in files if _is_picture(name) and name not in parts)]:
            path = Path(place, name)
            sources.append(Source(path, folder, path.relative_to(folder).as_posix()))
    if denied:
        return sources, f"the folder {_printable(denied[0])} cannot be read. Check who may read it."
    if not sources:
        return [], f"holds no images ({', '.join(ENDINGS)}). Name a folder with smear images."
    return sources, ""


def _in_glob(pattern: str) -> tuple[list[Source], str]:
    """All pictures that a glob matches, below the part of it that has no wildcard."""
    absolute = os.path.abspath(os.path.expanduser(pattern))
    parts = Path(absolute).parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root = Path(*parts[:fixed])
    sources: list[Source] = []
    matches = [Path(match) for match in sorted(glob.glob(absolute, recursive=True))]
    parts_in = {folder: _parts_of_slides(folder, _names_in(folder)) for folder in {path.parent for path in matches}}
    for path in matches:
        picture = omezarr.is_picture(path)
        if path.is_dir() and not picture and not path.is_symlink() and not _is_study(path) and "**" not in pattern:
            sources += [Source(s.path, root, s.path.relative_to(root).as_posix()) for s in _in_folder(path)[0]]
        elif picture or (_is_picture(path.name) and path.name not in parts_in[path.parent] and path.is_file()):
            sources.append(Source(path, root, path.relative_to(root).as_posix()))
    if not sources:
        return [], f"matches no images ({', '.join(ENDINGS)}). Check the pattern; quote it so that the shell leaves it."
    return sources, ""


def _is_picture(name: str) -> bool:
    """Whether a file is taken from a folder: not hidden (macOS leaves ``._`` twins) and of a known ending."""
    return not name.startswith(".") and name.lower().endswith(ENDINGS)


def _names_in(folder: Path) -> list[str]:
    """Names in a folder; none where it cannot be read."""
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _parts_of_slides(folder: Path, names: Sequence[str]) -> set[str]:
    """Files in a folder that are parts of a VMS or VMU slide in it."""
    texts = [folder / name for name in names if name.lower().endswith((".vms", ".vmu"))]
    return {name for path in texts for name in fingerprint.named_in(path)}


def _is_study(folder: Path) -> bool:
    """Whether a folder is a study, whose own pictures are no input."""
    return folder.name.endswith(STUDY_ENDING) and (folder / "study.json").exists()


def _printable(text: str) -> str:
    """Text with anything that a terminal cannot show as ``?``."""
    return text.encode("utf-8", "replace").decode().translate(dict.fromkeys(range(32), "?"))


@dataclass(frozen=True, slots=True)
class Grouping:
    """A rule that gives each file its slide or patient.

    Make it with `Grouping.parse`.

    Attributes
    ----------
    spec : str
        What the user wrote.
    what : {"slide", "patient"}
        What it names.
    """

    spec: str
    what: Literal["slide", "patient"]
    _levels: int = 0
    _pattern: re.Pattern[str] | None = None
    _rows: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, spec: str, what: Literal["slide", "patient"] = "slide") -> Grouping:
        """Read a rule.

        Parameters
        ----------
        spec : str
            ``folder`` (name of the file's folder), ``folder:2`` (the folder above, and so on), ``file`` (each file its
            own), a CSV file with the columns ``file`` and `what`, or a regular expression with one group, searched
            in the POSIX path below the input folder.
        what : {"slide", "patient"}
            What is named; also the column of the CSV.

        Raises
        ------
        InputError
            If it is none of these.
        """
        text = spec.strip()
        folder = re.fullmatch(r"folder(?::([1-9]))?", text)
        if text == "file":
            return cls(text, what)
        if folder:
            return cls(text, what, _levels=int(folder[1] or 1))
        if text.lower().endswith(".csv"):
            return cls(text, what, _rows=_read_rows(Path(text).expanduser(), what))
        return cls(text, what, _pattern=_compile(text, what))

    def group(self, source: Source) -> str:
        """Return the name of the slide or patient of a file.

        Raises
        ------
        InputError
            If the rule does not fit the file.
        """
        if self._pattern is not None:
            match = self._pattern.search(source.file)
            name = (match.group(match.lastgroup or 1) or "") if match else ""
            why = f"the regular expression {self.spec!r} finds nothing in it"
        elif self._rows:
            name = self._from_rows(source)
            why = f"{self.spec} has no row for it"
        elif self._levels:
            parents = source.path.parents
            name = parents[self._levels - 1].name if self._levels <= len(parents) else ""
            why = f"it has no folder {self._levels} above it"
        else:
            return source.file
        name = name.strip()
        if not name:
            raise InputError(f"{source.file}: no {self.what}, as {why}. Correct --{self.what}-from.")
        return check_text(name, f"{source.file}: {self.what}")

    def groups(self, sources: Iterable[Source]) -> list[str]:
        """Return the name for each file; if the rule does not fit some, one error tells how many and the first three.

        Raises
        ------
        InputError
            Before any work is done.
        """
        names: list[str] = []
        errors: list[str] = []
        for source in sources:
            try:
                names.append(self.group(source))
            except InputError as error:
                errors.append(str(error))
        if errors:
            raise InputError(f"{len(errors)} file(s) without a {self.what}:\n" + "\n".join(errors[:3]))
        return names

    def _from_rows(self, source: Source) -> str:
        """Look a file up by its path below the root, its whole path, then its bare name."""
        for key in (source.file, source.path.as_posix(), PurePosixPath(source.file).name):
            if key in self._rows:
                return self._rows[key]
        return ""


def _compile(text: str, what: str) -> re.Pattern[str]:
    """Compile a regular expression with exactly one group."""
    if not text:
        raise InputError(f"--{what}-from is empty. Give 'folder', 'file', a regular expression or a CSV file.")
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise InputError(f"--{what}-from {text!r} is not a regular expression ({error}).") from error
    if pattern.groups != 1:
        raise InputError(
            f"--{what}-from {text!r} has {pattern.groups} groups; exactly one is needed, for example "
            "'^([A-Z]+[0-9]+)_'. It may also be 'folder', 'folder:2', 'file' or a CSV file."
        )
    return pattern


def _read_rows(path: Path, what: str) -> dict[str, str]:
    """Read file and group from a CSV with comma, semicolon or tab; ``#`` lines are comments."""
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as a UTF-8 CSV ({error}). Check the name.") from error
    lines = [line for line in lines if not line.startswith("#")]
    head = lines[0] if lines else ""
    delimiter = max(",;\t", key=head.count)
    reader = csv.DictReader(lines, delimiter=delimiter)
    columns = [name.strip() for name in reader.fieldnames or []]
    if "file" not in columns or what not in columns:
        raise InputError(f"{path}: has the columns {columns}; 'file' and {what!r} are needed.")
    reader.fieldnames = columns
    rows: dict[str, str] = {}
    for number, row in enumerate(reader, start=2):
        name, group = (row["file"] or "").strip().replace("\\", "/"), (row[what] or "").strip()
        if not name or not group:
            raise InputError(f"{path}, row {number}: 'file' or {what!r} is empty.")
        if rows.setdefault(name, group) != group:
            raise InputError(f"{path}, row {number}: {name!r} is {group!r} here and {rows[name]!r} above.")
    if not rows:
        raise InputError(f"{path}: holds no rows.")
    return rows
