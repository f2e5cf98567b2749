"""How an atlas is built: labelled pictures in, one file out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from napari_dinobloom.predict.atlas import Atlas
from napari_dinobloom.predict.knn import Metric, Weights
from napari_dinobloom.predict.pictures import LabelledPicture, counts, iter_embed_pictures
from napari_dinobloom.progress import Progress, Steps, drain

if TYPE_CHECKING:
    from napari_dinobloom.cells.crop import CropPolicy
    from napari_dinobloom.encoders.encoder import Encoder


def build_atlas(
    pictures: Sequence[LabelledPicture],
    encoder: Encoder,
    policy: CropPolicy,
    *,
    name: str,
    k: int = 20,
    metric: Metric = "euclidean",
    weights: Weights = "uniform",
    workers: int = 2,
    thumbnails: bool = False,
    info: Mapping[str, Any] | None = None,
) -> Atlas:
    """Build a reference atlas of labelled pictures.

    Parameters
    ----------
    pictures : sequence of LabelledPicture
        Pictures of one cell each; see `read_labelled`.
    encoder : Encoder
        What embeds.
    policy : CropPolicy
        ``context``: each picture goes through segmentation like a smear. ``published``: it is resized as a whole.
    name : str
        Name for people.
    k, metric, weights
        As for `KnnClassifier`.
    workers : int
        Threads that read and segment.
    thumbnails : bool
        Whether the atlas carries small pictures of its cells.
    info : mapping, optional
        Origin, licence, notes; plain JSON values.

    Returns
    -------
    Atlas
        With threshold, distance limit and confusion from the held-out pictures, classified against the others; where
        all pictures or none are held out, each against all others. In its `info`: ``cells`` (per class: n, held_out,
        centred), ``pixel_size_um`` and ``scale_from``, versions of segmentation and crop.

    Raises
    ------
    AtlasError
        If pictures cannot be read, there are fewer than two classes, or two files with equal bytes disagree.
    """
    votes: dict[str, Any] = {"k": k, "metric": metric, "weights": weights}
    more: dict[str, Any] = {"workers": workers, "thumbnails": thumbnails, "info": info}
    return drain(iter_build_atlas(pictures, encoder, policy, name=name, **votes, **more))


def iter_build_atlas(
    pictures: Sequence[LabelledPicture],
    encoder: Encoder,
    policy: CropPolicy,
    *,
    name: str,
    k: int = 20,
    metric: Metric = "euclidean",
    weights: Weights = "uniform",
    workers: int = 2,
    thumbnails: bool = False,
    info: Mapping[str, Any] | None = None,
) -> Steps[Atlas]:
    """Twin of `build_atlas` that yields `Progress` and returns its result."""
    from napari_dinobloom.cells import crop, segment
    from napari_dinobloom.cells.segmenter import get_segmenter

    embedded = yield from iter_embed_pictures(pictures, encoder, policy, workers=workers, thumbnails=thumbnails)
    yield Progress(2 * len(pictures), 2 * len(pictures), "choosing the threshold on held-out cells")
    about: dict[str, Any] = {
        "cells": counts(embedded),
        "same_picture_twice": len(pictures) - len(embedded.y),
        "crop_version": crop.VERSION,
        **(info or {}),
    }
    if (pooling := getattr(encoder, "pooling", "class")) != "class":
        about["pooling"] = pooling
    if embedded.scale is not None:
        about |= {
            "pixel_size_um": embedded.scale.pixel_size_um,
            "scale_from": embedded.scale.source,
            "segment_version": segment.VERSION,
            "segmenter": get_segmenter("learned").key,
        }
    return Atlas.from_embeddings(
        embedded.X,
        embedded.y.tolist(),
        embedded.source.tolist(),
        embedded.held_out,
        name=name,
        encoder=encoder.name,
        encoder_sha256=encoder.sha256,
        policy=policy.to_dict(),
        policy_hash=policy.hash,
        k=k,
        metric=metric,
        weights=weights,
        thumbnails=embedded.thumbnails,
        info=about,
    )
