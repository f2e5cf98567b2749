"""The shelf: atlases and probes that are called by name, those that come with the package and the user's own.

The user's lie in ``atlases/`` of the user's data folder (`napari_dinobloom.io.locations.home`), one file each, called
by the file's name without its ending. A bundled name is never given to another file.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_dinobloom.errors import AtlasError, DinoBloomError
from napari_dinobloom.io.locations import home
from napari_dinobloom.io.tensors import read_header, read_kind
from napari_dinobloom.io.trust import is_id

if TYPE_CHECKING:
    from napari_dinobloom.cells.crop import CropPolicy

ENDING = ".safetensors"
_BUNDLED = "atlas-"


@dataclass(frozen=True, slots=True)
class Shelved:
    """One atlas or probe on the shelf, as its header describes it.

    Attributes
    ----------
    name : str
        What it is called by.
    path : Path
        Its file.
    kind : {"atlas", "probe"}
        What it is.
    encoder, encoder_sha256, policy_hash : str
        Whose embeddings of which crops it can name.
    pooling : str
        What of the encoder's output it was made of.
    stain : str
        How crops were recoloured first; empty where they were not, ``reference`` where it meets either kind.
    cells : int
        Reference cells, or the cells that a probe was trained on.
    classes : tuple of str
        What it can name.
    hash : str
        sha256 over all of it.
    bundled : bool
        Whether it comes with the package.
    problem : str
        Why it cannot be used; then all but name, path and bundled are empty.
    """

    name: str
    path: Path
    kind: Literal["atlas", "probe"] = "atlas"
    encoder: str = ""
    encoder_sha256: str = ""
    policy_hash: str = ""
    pooling: str = ""
    stain: str = ""
    cells: int = 0
    classes: tuple[str, ...] = ()
    hash: str = ""
    bundled: bool = False
    problem: str = ""


def shelf() -> list[Shelved]:
    """List what is on the shelf, bundled ones first, without reading more than headers.

    Returns
    -------
    list of Shelved
        By name; a file that cannot be read is among them, with its `problem`.
    """
    weights = Path(str(resources.files("napari_dinobloom") / "weights"))
    ours = weights.glob(f"{_BUNDLED}*{ENDING}")
    bundled = [look_at(path, path.stem.removeprefix(_BUNDLED), bundled=True) for path in ours]
    names = {one.name for one in bundled}
    own = [look_at(path) for path in own_folder().glob(f"*{ENDING}") if path.stem not in names]
    return sorted(bundled, key=lambda one: one.name) + sorted(own, key=lambda one: one.name)


def find(name_or_path: str | Path) -> Path:
    """Find the file of an atlas or a probe.

    Parameters
    ----------
    name_or_path : str or Path
        A name on the shelf, or a file: a `Path`, or a text with a folder or the ending ``.safetensors`` in it.

    Raises
    ------
    AtlasError
        If there is none; the message lists what is on the shelf.
    """
    text = str(name_or_path)
    if is_file(name_or_path):
        path = Path(text).expanduser()
        if not path.is_file():
            raise AtlasError(f"{path}: there is no such file")
        return path
    names = {one.name: one.path for one in shelf()}
    if text not in names:
        lies = f" For the file of this name here, write .{os.sep}{text}." if Path(text).is_file() else ""
        raise AtlasError(
            f"There is no atlas or probe {text!r} on the shelf; it holds {', '.join(names)}. "
            f"Name one of these, or a file.{lies}"
        )
    return names[text]


def is_file(name_or_path: str | Path) -> bool:
    """Whether `find` takes this for a file, be it there or not, and not for a name on the shelf."""
    text = str(name_or_path)
    return isinstance(name_or_path, Path) or text.endswith(ENDING) or any(mark in text for mark in {os.sep, "/"})


def own_folder() -> Path:
    """Folder of the user's own atlases and probes; it need not exist."""
    return home() / "atlases"


def place_of(name: str) -> Path:
    """File that the user's own atlas or probe of this name has or would have.

    Raises
    ------
    AtlasError
        If the name cannot be a file's on every system, or comes with the package.
    """
    if not is_id(name):
        raise AtlasError(f"{name[:80]!r} cannot be a name on the shelf; use A-Z a-z 0-9 _ . -, at most 80 characters")
    if any(one.name == name for one in shelf() if one.bundled):
        raise AtlasError(f"{name!r} comes with the package and is not changed; choose another name")
    return own_folder() / f"{name}{ENDING}"


def bundled_file(encoder: str, policy: CropPolicy | str) -> Path | None:
    """Atlas that comes with the package for an encoder's name and a kind of crops; None if there is none."""
    kind = policy if isinstance(policy, str) else policy.kind
    path = Path(str(resources.files("napari_dinobloom") / "weights" / f"{_BUNDLED}{encoder}-{kind}{ENDING}"))
    return path if Path(encoder).name == encoder and path.is_file() else None


def look_at(path: Path, name: str = "", *, bundled: bool = False) -> Shelved:
    """Describe a file that may lie anywhere, as `shelf` does; one that is no atlas or probe has a `problem`.

    Parameters
    ----------
    path : Path
        The file.
    name : str
        What it is called by; by default the file's name without its ending.
    bundled : bool
        Whether it comes with the package.
    """
    from napari_dinobloom.predict import atlas_file, probe

    name = name or path.stem
    try:
        if read_kind(path, AtlasError) == probe.KIND:
            about = probe.check_header(path, read_header(path, probe.KIND, AtlasError))
            return _shelved(name, path, "probe", about, int(about["cells"]), bundled)
        about = atlas_file.check_header(path, read_header(path, atlas_file.KIND, AtlasError))
        return _shelved(name, path, "atlas", about, atlas_file.count_cells(path), bundled)
    except DinoBloomError as error:
        return Shelved(name, path, bundled=bundled, problem=str(error))


def _shelved(
    name: str, path: Path, kind: Literal["atlas", "probe"], about: dict[str, Any], cells: int, bundled: bool
) -> Shelved:
    """What a header says."""
    return Shelved(
        name=name,
        path=path,
        kind=kind,
        encoder=about["encoder"],
        encoder_sha256=about["encoder_sha256"],
        policy_hash=about["policy_hash"],
        pooling=str(about["info"].get("pooling", "class")),
        stain=str(about["info"].get("stain", "")),
        cells=cells,
        classes=tuple(map(str, about["classes"])),
        hash=about["hash"],
        bundled=bundled,
    )
