"""Colours for patch tokens: a PCA over the patches of many cells, three components to red, green, blue.

Owns the basis of such colours, which can be kept and put on other cells, so that a colour means the same there. Tokens
of many cells do not fit into memory: what is fitted reads them cell by cell, in float64, as often as it needs to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, get_args

import numpy as np
import numpy.typing as npt

from napari_dinobloom.encoders.foreground import Rule, find_foreground
from napari_dinobloom.encoders.principal import principal_axes
from napari_dinobloom.errors import EncoderError
from napari_dinobloom.io.tensors import read_tensors, write_tensors

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

Tokens = Float32 | Iterable[Float32] | Callable[[], Iterable[Float32]]
"""Patch tokens (n, h, w, D): an array, batches of such, or a function that gives the batches anew at each call."""

KIND = "patch-basis"
SCHEMA = 1
FLAT = 1e-9
"""A component whose spread is this share of the largest score, or less, is rounding noise."""

CELLS = 64
"""Cells that are read at a time from an array on the disk: 50 MB of 768 dimensions."""

REMEDY = "use that encoder, or fit a basis to tokens of this one"

_SHAPES: dict[str, tuple[int | str, ...]] = {
    "mean": ("D",),
    "axes": (3, "D"),
    "low": (3,),
    "high": (3,),
    "explained": (3,),
    "foreground_axis": ("D",),
}
_HEADER: dict[str, type] = {"encoder": str, "encoder_sha256": str, "cells": int, "patches": int}


class HasWeights(Protocol):
    """What tells one encoder from another."""

    @property
    def name(self) -> str:
        """Name of the encoder."""

    @property
    def sha256(self) -> str:
        """Hash of its weights."""


def patch_pca(
    tokens: Float32,
    *,
    foreground: Rule | Mask | None = None,
    percentiles: tuple[float, float] = (1.0, 99.0),
) -> Float32:
    """Show patch tokens as colours that mean the same in all given cells.

    A `PatchBasis` fitted to these cells and applied to them. To show other cells in the same colours, keep the basis.

    Parameters
    ----------
    tokens : ndarray (n, h, w, D) float32
        What `Encoder.patch_tokens` gives.
    foreground : {"otsu", "centre"} or ndarray (n, h, w) bool, optional
        Patches that count, as for `PatchBasis.fit`; everything else is black. All patches count without it.
    percentiles : (float, float), default: (1, 99)
        Values of a component that become 0 and 1; what lies beyond is clipped.

    Returns
    -------
    ndarray (n, h, w, 3) float32
        Colours in 0..1. A component without any spread is 0.5 everywhere.

    Raises
    ------
    ValueError
        Where the arrays do not fit each other, tokens are not finite, or percentiles do not increase.
    """
    _check_percentiles(percentiles)
    tokens = np.asarray(tokens, np.float32)
    mask = None if foreground is None or isinstance(foreground, str) else np.asarray(foreground, bool)
    for _ in _Cells(tokens, mask):  # what is wrong with the shapes is said even where nothing counts
        pass
    if not (tokens.size if mask is None else mask.any()):
        return np.zeros((*tokens.shape[:3], 3), np.float32)
    return PatchBasis.fit(tokens, foreground=foreground, percentiles=percentiles).apply(tokens, foreground=mask)


@dataclass(frozen=True, slots=True, eq=False)
class PatchBasis:
    """What patch tokens are turned into colours by; made by `fit` or `load`.

    Attributes
    ----------
    mean : ndarray (D,) float64
        Mean of the tokens that counted.
    axes : ndarray (3, D) float64
        Principal axes, orthonormal, by falling variance; zero where there is none left. The sign, which a PCA leaves
        open, is such that the loading of largest size is positive (scikit-learn's rule).
    low, high : ndarray (3,) float64
        Scores that become 0 and 1.
    explained : ndarray (3,) float64
        Share of the variance along each axis.
    foreground_axis : ndarray (D,) float64
        A patch is foreground where its token's product with this exceeds `foreground_threshold`; zeros where all
        patches count.
    foreground_threshold : float
        That threshold; below zero where all patches count.
    encoder, encoder_sha256 : str
        Name and hash of the weights that the tokens came from; empty where nobody said.
    cells, patches : int
        How many cells, and how many patches of them, were fitted.
    """

    mean: Float64
    axes: Float64
    low: Float64
    high: Float64
    explained: Float64
    foreground_axis: Float64
    foreground_threshold: float
    encoder: str = ""
    encoder_sha256: str = ""
    cells: int = 0
    patches: int = 0

    @classmethod
    def fit(
        cls,
        tokens: Tokens,
        *,
        encoder: HasWeights | None = None,
        foreground: Rule | Mask | None = None,
        percentiles: tuple[float, float] = (1.0, 99.0),
    ) -> PatchBasis:
        """Fit one PCA to the patches of all cells together (Koch et al. 2024, arXiv 2404.05022, Fig. 3).

        Parameters
        ----------
        tokens : ndarray (n, h, w, D) float32, or batches of such
            What `Encoder.patch_tokens` gives. Too many for the memory come as a sequence of batches that is read on
            demand (a zarr array, a memory map), or as a function that gives the batches anew each time: they are read
            twice, with a rule for the foreground four times. How they are cut into batches does not change the result.
            Beside a batch, 24 bytes a patch are kept.
        encoder : Encoder, or anything with its ``name`` and ``sha256``, optional
            What made the tokens; without it nobody can tell later that the tokens of another encoder do not fit.
        foreground : {"otsu", "centre"} or ndarray (n, h, w) bool, optional
            Patches that count; see `foreground.find_foreground` for the rules, which then belong to the basis.
        percentiles : (float, float), default: (1, 99)
            Values of a component that become 0 and 1; what lies beyond is clipped.

        Returns
        -------
        PatchBasis

        Raises
        ------
        ValueError
            Where there is no patch to fit, shapes do not fit, tokens are not finite, or percentiles do not increase.
        """
        _check_percentiles(percentiles)
        mask = None if foreground is None or isinstance(foreground, str) else np.asarray(foreground, bool)
        cells = _Cells(tokens, mask)
        axis, threshold = np.zeros(0), -1.0
        if isinstance(foreground, str):
            if foreground not in get_args(Rule):
                raise ValueError(f"foreground={foreground!r}: use {', '.join(get_args(Rule))}, or a bool array.")
            axis, threshold = find_foreground(cells, foreground)
        mean, axes, explained = principal_axes((x for _, x in _counted(cells, mask, axis, threshold)), 3)
        scores = np.concatenate([(x - mean) @ axes.T for _, x in _counted(cells, mask, axis, threshold)])
        low, high = np.percentile(scores, percentiles, axis=0)
        flat = high - low <= FLAT * np.abs(scores).max()
        return cls(
            mean=mean,
            axes=axes,
            low=low,
            high=np.where(flat, low, high),
            explained=explained,
            foreground_axis=axis if len(axis) else np.zeros_like(mean),
            foreground_threshold=threshold,
            encoder=encoder.name if encoder is not None else "",
            encoder_sha256=encoder.sha256 if encoder is not None else "",
            cells=cells.count or 0,
            patches=len(scores),
        )

    @property
    def has_foreground(self) -> bool:
        """Whether the basis tells foreground from background by itself."""
        return bool(self.foreground_axis.any())

    def apply(self, tokens: Float32, *, encoder: HasWeights | None = None, foreground: Mask | None = None) -> Float32:
        """Colour the patches of cells; those of a cell are the same to the bit whatever cells come with it.

        Parameters
        ----------
        tokens : ndarray (n, h, w, D) float32
            Of the encoder that the basis was fitted with.
        encoder : Encoder, or anything with its ``name`` and ``sha256``, optional
            What made the tokens; its hash is compared with that of the basis.
        foreground : ndarray (n, h, w) bool, optional
            Patches to colour, instead of those that the basis' own rule finds.

        Returns
        -------
        ndarray (n, h, w, 3) float32
            Colours in 0..1, black in the background.

        Raises
        ------
        EncoderError
            Where the tokens are those of another encoder, or of another dimension.
        ValueError
            Where shapes do not fit, or tokens that count are not finite.
        """
        tokens = np.asarray(tokens, np.float32)
        if encoder is not None:
            self.check_encoder(encoder.name, encoder.sha256)
        if tokens.ndim == 4 and tokens.shape[3] != len(self.mean):
            raise EncoderError(
                f"The tokens have {tokens.shape[3]} dimensions, but {self._whose()} with {len(self.mean)}: {REMEDY}."
            )
        mask = None if foreground is None else np.asarray(foreground, bool)
        cells = _Cells(tokens, mask)
        out = np.zeros((*tokens.shape[:3], 3), np.float32)
        flat = self.high <= self.low
        spread = np.where(flat, 1.0, self.high - self.low)
        for number, (kept, x_PD) in enumerate(_counted(cells, mask, self.foreground_axis, self.foreground_threshold)):
            if not np.isfinite(x_PD).all():
                raise ValueError(f"Patch tokens of cell {number} are infinite or undefined; compute them again.")
            scaled = np.clip(((x_PD - self.mean) @ self.axes.T - self.low) / spread, 0, 1)
            out[number][kept] = np.where(flat, 0.5, scaled)
        return out

    def check_encoder(self, name: str, sha256: str) -> None:
        """Refuse an encoder that the basis does not belong to, before anything is computed.

        Parameters
        ----------
        name, sha256 : str
            Name of the encoder, for the message, and hash of its weights.

        Raises
        ------
        EncoderError
            If the basis knows its encoder and that has another hash.
        """
        if self.encoder_sha256 not in ("", sha256):
            raise EncoderError(
                f"The tokens come from {name} with weights {sha256[:12]}, but {self._whose()} with weights "
                f"{self.encoder_sha256[:12]}: {REMEDY}."
            )

    def _whose(self) -> str:
        return f"this basis belongs to {self.encoder or 'an encoder nobody named'}"

    def save(self, path: str | Path) -> Path:
        """Write the basis as safetensors with JSON in the header, whole or not at all; return the path."""
        tensors = {name: getattr(self, name) for name in _SHAPES} | {"threshold": np.array([self.foreground_threshold])}
        about = {"schema": SCHEMA} | {name: getattr(self, name) for name in _HEADER}
        return write_tensors(Path(path), tensors, KIND, about)

    @classmethod
    def load(cls, path: str | Path) -> PatchBasis:
        """Read a basis, which may come from a stranger.

        Raises
        ------
        EncoderError
            If the file is missing, damaged, of another kind, or of a later version; the message names it.
        """
        path = Path(path)
        tensors, about = read_tensors(path, KIND, dict.fromkeys([*_SHAPES, "threshold"], "float64"), EncoderError)
        if about.get("schema") != SCHEMA:
            raise EncoderError(f"{path}: has schema {about.get('schema')!r}, this version reads {SCHEMA}; update it.")
        wrong = [name for name, kind in _HEADER.items() if type(about.get(name)) is not kind]
        dim = tensors["mean"].size
        shapes = {name: tuple(dim if side == "D" else side for side in shape) for name, shape in _SHAPES.items()}
        wrong += [name for name, shape in shapes.items() if tensors[name].shape != shape]
        wrong += [name for name, values in tensors.items() if not np.isfinite(values).all()]
        if wrong or tensors["threshold"].shape != (1,):
            raise EncoderError(f"{path}: {', '.join(wrong) or 'threshold'} cannot be right; the file was changed.")
        fields: dict[str, Any] = {name: tensors[name] for name in _SHAPES} | {name: about[name] for name in _HEADER}
        return cls(**fields, foreground_threshold=float(tensors["threshold"][0]))


class _Cells:
    """Patch tokens cell by cell, (h, w, D) each, as often as they are asked for; `count` is how many there are."""

    def __init__(self, tokens: Tokens, mask: Mask | None) -> None:
        if isinstance(tokens, Iterator):
            raise ValueError("These batches can be read once only: give a function that begins anew at each call.")
        self._tokens, self._mask = tokens, mask
        self.count: int | None = None

    def __iter__(self) -> Iterator[Float32]:
        count = 0
        shape: tuple[int, ...] | None = None
        for batch in self._batches():
            if batch.ndim != 4 or batch.shape[1:] != (shape or batch.shape[1:]):
                wanted = f"(n, {', '.join(map(str, shape))})" if shape else "(n, h, w, D)"
                raise ValueError(f"Patch tokens must be {wanted}; got shape {batch.shape}.")
            shape = batch.shape[1:]
            stop = count + len(batch)
            if self._mask is not None and self._mask[count:stop].shape != batch.shape[:3]:
                raise ValueError(f"foreground has shape {self._mask.shape}, the tokens are {batch.shape[:3]}.")
            count = stop
            yield from batch
        if self._mask is not None and len(self._mask) != count:
            raise ValueError(f"foreground has shape {self._mask.shape}, there are {count} cells.")
        if self.count not in (None, count):
            raise ValueError(f"The batches held {self.count} cells at first, then {count}: begin anew at each call.")
        self.count = count

    def _batches(self) -> Iterator[Float32]:
        """Batches of tokens; an array that is not in memory is read a few cells at a time."""
        tokens: Any = self._tokens() if callable(self._tokens) else self._tokens
        if not hasattr(tokens, "shape"):
            yield from (np.asarray(batch, np.float32) for batch in tokens)
            return
        if len(tokens.shape) != 4:
            raise ValueError(f"Patch tokens must be (n, h, w, D); got shape {tuple(tokens.shape)}.")
        for start in range(0, tokens.shape[0], CELLS):
            yield np.asarray(tokens[start : start + CELLS], np.float32)


def _counted(
    cells: _Cells, mask: Mask | None, axis: Float64, threshold: float
) -> Iterator[tuple[npt.NDArray[np.bool_], Float64]]:
    """Of each cell the patches that count, (h, w) bool, and their tokens, one a row in float64."""
    for number, x_HWD in enumerate(cells):
        grid = x_HWD.shape[:2]
        if mask is not None:
            kept = mask[number]
        elif axis.any():
            kept = (x_HWD.reshape(-1, len(axis)).astype(np.float64) @ axis > threshold).reshape(grid)
        else:
            kept = np.ones(grid, bool)
        yield kept, x_HWD[kept].astype(np.float64)


def _check_percentiles(percentiles: tuple[float, float]) -> None:
    low, high = percentiles
    if not 0 <= low < high <= 100:
        raise ValueError(f"percentiles={percentiles}: give two increasing numbers in 0..100.")
