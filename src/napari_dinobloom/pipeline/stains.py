"""Stain normalisation in a study: each slide's stain from its own crops, and its crops recoloured before embedding.

What a slide's stain is depends on its crops; so do the keys under which its embeddings are kept. Cells that are added
or cut anew may move the stain of their slide by a little, and then that slide is embedded again, others are not; a
cell that is deleted moves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_dinobloom.cells.stain_transfer import (
    VERSION,
    Method,
    SlideStain,
    estimate,
    reference,
    sample_rows,
    transfer,
)
from napari_dinobloom.io.embeddings import Keys, Rows
from napari_dinobloom.pipeline.crops import read_crop
from napari_dinobloom.pipeline.settings import digest
from napari_dinobloom.progress import Progress, Steps

if TYPE_CHECKING:
    from napari_dinobloom.io.study import Study

Pictures = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class StudyStains:
    """The stains of a study's slides, and how they are normalised.

    Attributes
    ----------
    method : {"reinhard", "macenko"}
        How.
    names : tuple of str
        Slides.
    stains : tuple of SlideStain or None
        The stain of each; None where too little is seen: its crops stay as they are.
    slide : (n,) array of int
        Place in `names` of each cell's slide.
    """

    method: Method
    names: tuple[str, ...]
    stains: tuple[SlideStain | None, ...]
    slide: NDArray[np.intp]

    def of(self, rows: Rows) -> StudyStains:
        """The same for some cells only, in the order of `rows`."""
        return replace(self, slide=self.slide[rows])

    def keys(self, crops: Keys) -> Keys:
        """Keys of the recoloured crops, made of those of the crops, (n,) uint64."""
        goal = reference().to_dict()
        salts = [
            int(digest(VERSION, self.method, goal, None if stain is None else stain.to_dict()), 16)
            for stain in self.stains
        ]
        return crops ^ np.array(salts, np.uint64)[self.slide]

    def recoloured(self, pictures: Pictures, rows: Rows) -> Pictures:
        """The crops of some cells, recoloured: (m, Y, X, 3) uint8, in the order of `rows`."""
        out = np.array(pictures)
        slides = self.slide[rows]
        for number in np.unique(slides):
            own = slides == number
            out[own] = transfer(out[own], self.method, self.stains[number])
        return out

    def unknown(self) -> list[str]:
        """Slides whose stain could not be told, so that they are left as they are."""
        return [name for name, stain in zip(self.names, self.stains, strict=True) if stain is None]


def iter_find_stains(study: Study, method: Method) -> Steps[StudyStains]:
    """Estimate the stain of every slide from some of its crops, which must be cut.

    Cells that people deleted are looked at too: they were stained with their slide, and its stain, on which the keys of
    all its cells rest, is the same before and after. Cells that are no longer found, or never were, are not.
    """
    obs = study.cells.obs
    names, slide = np.unique(obs["slide"].to_numpy(str), return_inverse=True)
    there = ~obs["gone"].to_numpy(bool) & ~obs.index.isin(list(study.hand_unmade()))
    stains = []
    for number, name in enumerate(names.tolist()):
        yield Progress(number, len(names), f"stain of slide {name}")
        stains.append(estimate(np.stack(list(_sampled(study, np.flatnonzero((slide == number) & there))))))
    return StudyStains(method, tuple(names.tolist()), tuple(stains), slide.astype(np.intp))


def _sampled(study: Study, rows: Rows) -> Iterator[Pictures]:
    """Crops of the sample of some rows; one that is black where there is none."""
    if not len(rows):
        yield np.zeros((224, 224, 3), np.uint8)
    for row in rows[sample_rows(len(rows))]:
        yield read_crop(study, int(row))
