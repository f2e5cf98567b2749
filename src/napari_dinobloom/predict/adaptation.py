"""Cells of another laboratory brought nearer to the reference, and the rule that says whether to, without labels.

Four options (`OPTIONS`): nothing; moving the embeddings of each slide (`explore.restandardise`); recolouring its crops
before they are embedded, by Reinhard's or Macenko's way (`cells.stain_transfer`).

The rule (`pick`). An option is judged by the distance of each cell to its k-th nearest reference cell, as novelty is:
if a stain was what kept cells away from the reference, taking it out brings them near. Compared cell by cell, an option
must shorten that distance by more than its `LEAST_GAIN`, beyond doubt; of those that do, the one that shortens it most
is picked, and where none does, nothing is done. A cell's class is never looked at. Re-standardising is fitted to these
very distances and shortens them whether or not it helps, so it needs far more. The gains were set on held-out cells of
PBC ``train`` under made-up changes of colour, stain, focus and scale and made-up mixes of classes; see docs/trust.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from napari_dinobloom.io.vectors import AT_ONCE, Vectors
from napari_dinobloom.predict.novelty import FEWEST

if TYPE_CHECKING:
    from napari_dinobloom.predict.classifier import CellClassifier

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

Option = Literal["none", "restandardise", "reinhard", "macenko"]
OPTIONS: tuple[Option, ...] = ("none", "restandardise", "reinhard", "macenko")

LEAST_GAIN: dict[str, float] = {"restandardise": 0.20, "reinhard": 0.05, "macenko": 0.05}
"""Least shortening of the distance that counts as evidence, in natural logarithm: 0.05 is about a twentieth."""

DOUBT = 2.0
"""Standard errors by which the shortening must exceed that."""


@dataclass(frozen=True, slots=True, eq=False)
class Shifts:
    """What is taken from the embeddings of each slide.

    Attributes
    ----------
    slides : tuple of str
        Slides, or patients.
    shift : (slides, D) array of float32
        What is subtracted.
    """

    slides: tuple[str, ...]
    shift: Float32

    def apply(self, X: npt.ArrayLike, slides: Sequence[Any] | npt.NDArray[Any]) -> Float32:
        """Move cells, each by its own slide's shift, whatever stands beside it: (n, D) float32.

        Cells of a slide that is not known stay where they are: none of its cells was there when the shifts were fitted.
        """
        place = {name: row for row, name in enumerate(self.slides)}
        rows = np.array([place.get(str(name), len(place)) for name in slides], np.intp)
        table = np.asarray(X, np.float32)
        return table - np.vstack([self.shift, np.zeros_like(table, shape=(1, table.shape[1]))])[rows]


def shifts(X: npt.ArrayLike | Vectors, slides: Sequence[Any] | npt.NDArray[Any], reference: CellClassifier) -> Shifts:
    """Estimate by what the cells of each slide differ from the reference within populations.

    The reference is one group whose cells stay where they are; its populations are those of the re-standardisation of
    maps (`explore.restandardise`), and each slide is fitted among them. The shift of a slide is shrunk towards none by
    `slide_shifts.LEAST_PRIOR` cells. Spreads are left alone: cells of the reference that the encoder learned from lie
    closer together than any new cell can, and matching that took cells away from the reference.

    Parameters
    ----------
    X : (n, D) array of float, or Vectors
        Embeddings; of very many, some slides are read at a time.
    slides : (n,) sequence
        Slide, or patient, of each cell.
    reference : Atlas or Probe
        The reference.

    Raises
    ------
    ValueError
        If shapes do not fit or a value is not finite.
    """
    from napari_dinobloom.explore.restandardise import Restandardise, batches
    from napari_dinobloom.explore.slide_shifts import LEAST_PRIOR

    table = X if isinstance(X, Vectors) else Vectors(np.asarray(X, np.float32))
    if not len(table):
        return Shifts((), np.zeros((0, reference.X.shape[1]), np.float32))
    own = "\0reference"  # no slide has this name
    model = replace(Restandardise.fit(reference.X, [own] * len(reference.X)), prior=LEAST_PRIOR)
    for rows in batches(slides, AT_ONCE):
        model = model.with_groups(table[rows], np.asarray(slides)[rows])
    return Shifts(model.groups[1:], model.shift[1:])


def moved(X: npt.ArrayLike, slides: Sequence[Any] | npt.NDArray[Any], reference: CellClassifier) -> Float32:
    """Embeddings without the shift of their slide, (n, D) float32; see `shifts`."""
    return shifts(X, slides, reference).apply(X, slides)


def evidence(X: npt.ArrayLike, reference: CellClassifier, source: Sequence[str] | None = None) -> Float64:
    """How far cells lie from the reference, in natural logarithm.

    Parameters
    ----------
    X : (n, D) array of float
        Embeddings under one option.
    reference : Atlas or Probe
        The reference.
    source : (n,) sequence of str, optional
        Picture of each cell; reference cells of the same picture do not count.

    Returns
    -------
    (n,) array of float64
        Logarithm of the distance to the k-th nearest reference cell.
    """
    distance = reference.classify(X, source)["distance"].to_numpy(np.float64)
    far: Float64 = np.log(np.clip(distance, 1e-6, 1e6))
    return far


@dataclass(frozen=True, slots=True)
class Choice:
    """What the rule picked.

    Attributes
    ----------
    option : str
        One of `OPTIONS`.
    why : str
        In words, for people.
    shorter : mapping of str to (float, float)
        For each option but none: mean shortening of the distance in natural logarithm, and its standard error.
    """

    option: Option
    why: str
    shorter: Mapping[str, tuple[float, float]]


def pick(found: Mapping[Option, Float64]) -> Choice:
    """Pick an option by the rule of this module.

    Parameters
    ----------
    found : mapping of str to (n,) array
        `evidence` of the same cells, in the same order, under each option; ``none`` must be there.

    Returns
    -------
    Choice
        ``none`` where fewer than `novelty.FEWEST` cells are given.

    Raises
    ------
    ValueError
        If ``none`` is missing, an option is not known, or lengths differ.
    """
    unknown = sorted(set(found) - set(OPTIONS))
    if "none" not in found or unknown or len({len(values) for values in found.values()}) != 1:
        raise ValueError(f"Evidence of the same cells under none and others of {OPTIONS} is needed; got {list(found)}.")
    plain = found["none"]
    if len(plain) < FEWEST:
        return Choice("none", f"{len(plain)} cells are too few to tell ({FEWEST} are needed).", {})
    shorter: dict[str, tuple[float, float]] = {}
    for option in OPTIONS[1:]:
        if option in found:
            gain = plain - found[option]
            shorter[option] = (float(gain.mean()), float(gain.std(ddof=1) / np.sqrt(len(gain))))
    clear: list[Option] = [
        option for option in OPTIONS[1:]
        if option in shorter and shorter[option][0] - DOUBT * shorter[option][1] > LEAST_GAIN[option]
    ]  # fmt: skip
    if not clear:
        return Choice("none", "No option brings the cells clearly nearer to the reference.", shorter)
    best = max(clear, key=lambda option: shorter[option][0])
    percent = 100 * (1 - np.exp(-shorter[best][0]))
    why = f"{best} brings the cells nearer to the reference by {percent:.0f} %, more than any other option."
    return Choice(best, why, shorter)
