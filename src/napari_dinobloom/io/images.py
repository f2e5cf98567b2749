"""Where the images of a study lie on this machine, and the pictures that are kept in the study itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.errors import StudyError
from napari_dinobloom.io import locations, lock, manifest
from napari_dinobloom.io.atomic import disk_errors
from napari_dinobloom.io.fields import INSIDE, FieldRecord, make_id
from napari_dinobloom.io.folder import StudyFolder
from napari_dinobloom.io.omezarr import is_picture
from napari_dinobloom.io.roots import find_root
from napari_dinobloom.io.smear import Smear, read_smear, write_picture
from napari_dinobloom.io.trust import check_relative, inside


class StudyImages(StudyFolder):
    """A study folder and the images of its fields."""

    def __init__(self, path: Path, content: manifest.Manifest, held: lock.Lock | lock.Holder | None, why: str) -> None:
        super().__init__(path, content, held, why)
        self._places: dict[str, Path] = {}

    def add_root(self, folder: str | Path) -> str:
        """Return the root id of a folder of images; a new one where no known root is this folder.

        A root that is not found on this machine is recognised by the hashes of its files and remembered at its new
        place. Where the folder lies is kept in the user's own locations file, not in the study.
        """
        folder = Path(folder).resolve()
        if folder == self.path:
            return INSIDE
        known = {root: self._place(root) for root in self._manifest.roots}
        root = find_root(folder, known, self._manifest.fields)
        if root is None:
            root = f"r{max((int(name[1:]) for name in known), default=0) + 1}"
            bare = folder.name
            try:
                check_relative(bare, "root")
            except StudyError:
                bare = ""
            self._replace(roots={**self._manifest.roots, root: bare})
        if known.get(root) != folder:
            self.remember_root(root, folder)
        return root

    def remember_root(self, root_id: str, folder: str | Path) -> None:
        """Say where the images of a root lie on this machine; also allowed for a read-only study."""
        if root_id not in self._manifest.roots:
            raise StudyError(f"{self.path}: has no root {root_id[:40]!r}; it has {', '.join(self._manifest.roots)}.")
        self._places[root_id] = Path(folder).resolve()
        try:
            locations.remember(self.id, root_id, self._places[root_id])
        except OSError:
            return  # a user without a writable home: known for this session

    def _place(self, root: str) -> Path | None:
        """Folder of a root on this machine, as far as known."""
        if root not in self._places:
            self._places.update(
                {name: at for name, at in locations.recall(self.id).items() if name not in self._places}
            )
        return self._places.get(root)

    def locate(self, field: FieldRecord | str) -> Path:
        """Return the image file of a field on this machine.

        Raises
        ------
        StudyError
            If it is not found; the message says how to name its folder.
        """
        record = self.field(field) if isinstance(field, str) else field
        check_relative(record.file, f"{self.path}: field {record.id}")
        if record.root == INSIDE:
            path, place = inside(self.path, record.file), self.path
        else:
            known = self._place(record.root)
            title = self._manifest.roots.get(record.root) or record.root
            if known is None:
                raise StudyError(
                    f"{self.path}: the folder {title!r} with the image {record.file!r} is not known on this machine. "
                    f"Run again with that folder as input, or call study.remember_root({record.root!r}, FOLDER)."
                )
            path, place = known / record.file, known
        if not path.is_file() and not is_picture(path):
            raise StudyError(
                f"{path}: the image of field {record.id!r} is gone. Connect its disk or put it back into {place}; if "
                f"it was moved, call study.remember_root({record.root!r}, FOLDER) or run again with its new folder."
            )
        return path

    def read_field(self, field_id: str) -> Smear:
        """Open the image of a field; its pixels are read when they are asked for."""
        return read_smear(self.locate(field_id))

    def keep_picture(self, name: str, pixels: NDArray[np.uint8], pixel_size_um: float | None = None) -> Path:
        """Store a picture that exists only in memory as ``fields/NAME.png`` and return its path.

        Parameters
        ----------
        name : str
            Wanted name; made portable. A file with other pixels is not overwritten.
        pixels : ndarray
            (Y, X, 3) uint8.
        pixel_size_um : float, optional
            Micrometres a pixel, stored in the file.
        """
        self.ensure_writable()
        folder = self.path / "fields"
        with disk_errors(folder):
            folder.mkdir(exist_ok=True)
        taken: list[str] = []
        while True:
            path = folder / f"{make_id(name, taken)}.png"
            if not path.exists():
                with disk_errors(path):
                    write_picture(path, pixels, pixel_size_um)
                return path
            stored = read_smear(path)
            if stored.image.shape == pixels.shape and np.array_equal(np.asarray(stored.image), pixels):
                return path
            taken.append(path.stem)
