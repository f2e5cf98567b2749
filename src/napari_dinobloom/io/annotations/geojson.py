"""GeoJSON as QuPath reads and writes it: one feature a cell, the nucleus beside it, the class in its properties.

QuPath's coordinates are x, y in pixels of the full image, 0, 0 at the upper left corner of the first pixel.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_dinobloom.errors import InputError
from napari_dinobloom.io.annotations.marks import Flaw, Mark, Marks, mark_of_outline, read_text, ring_of, sift
from napari_dinobloom.io.annotations.polygons import Polygon, trace
from napari_dinobloom.io.atomic import disk_errors, write_text
from napari_dinobloom.io.masks import Bitmap, FieldMasks

ENDINGS = (".geojson", ".json")

CELLS = ("cell", "detection", "PathCellObject", "PathDetectionObject")
"""Kinds of objects that are single cells, also by their names in QuPath 0.2."""

NO_CELLS = ("tile", "tma_core", "root", "PathTileObject", "TMACoreObject", "PathRootObject")


def read_geojson(path: Path, size: tuple[int, int]) -> Marks:
    """Read the outlines of one GeoJSON file; see `read_annotations`.

    Where a file holds cells or detections, its annotations are regions around them and no cells.
    """
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no GeoJSON ({str(error)[:200]}). Export it from QuPath again.") from error
    features = content
    if isinstance(content, dict):
        features = content.get("features") if content.get("type") == "FeatureCollection" else [content]
    if not isinstance(features, list):
        raise InputError(f"{path}: is no GeoJSON FeatureCollection. In QuPath: File > Export objects as GeoJSON.")
    kinds = [_kind(feature) for feature in features]
    single = any(kind in CELLS for kind in kinds)
    entries = (
        (f"feature {number}", feature)
        for number, (kind, feature) in enumerate(zip(kinds, features, strict=True), start=1)
        if kind in CELLS or not (single or kind in NO_CELLS)
    )
    return sift(path, size, entries, _mark)


def _kind(feature: object) -> str:
    """Kind of object; empty where it is not said."""
    if not isinstance(feature, dict):
        return ""
    properties = feature.get("properties")
    if isinstance(properties, dict):
        for key in ("objectType", "object_type"):
            if isinstance(properties.get(key), str):
                return str(properties[key])
    return str(feature.get("id", ""))


def _mark(where: str, feature: object) -> Mark:
    """Cell of one feature."""
    if not isinstance(feature, dict) or feature.get("type") != "Feature":
        raise Flaw("is no GeoJSON Feature. Delete it or export again.")
    nucleus = feature.get("nucleusGeometry")
    inner = _polygons(nucleus) if nucleus is not None else ()
    return mark_of_outline(where, _class(feature), _polygons(feature.get("geometry")), inner)


def _class(feature: Mapping[str, Any]) -> str:
    """Name of the class; of several, joined as QuPath shows them."""
    properties = feature.get("properties")
    given = properties.get("classification") if isinstance(properties, dict) else None
    if isinstance(given, dict):
        names = given.get("names")
        given = given.get("name") or (": ".join(map(str, names)) if isinstance(names, list) else "")
    return given if isinstance(given, str) else ""


def _polygons(geometry: object) -> tuple[Polygon, ...]:
    """Polygons of a geometry, as y, x."""
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if not isinstance(geometry, dict) or kind not in ("Polygon", "MultiPolygon"):
        raise Flaw(f"is a {str(kind)[:40]}, not a Polygon or MultiPolygon. Outline the cell, or delete the feature.")
    given = geometry.get("coordinates")
    parts = [given] if kind == "Polygon" else given
    if not isinstance(parts, list) or not all(isinstance(rings, list) and rings for rings in parts):
        raise Flaw("has no coordinates. Delete it or export again.")
    polygons = []
    for rings in parts:
        try:
            points = [np.asarray(ring, np.float64) for ring in rings]
        except (ValueError, TypeError, OverflowError) as error:
            raise Flaw("its coordinates are no list of x, y. Delete it or export again.") from error
        if any(ring.ndim != 2 or ring.shape[1] < 2 for ring in points):
            raise Flaw("its coordinates are no list of x, y. Delete it or export again.")
        polygons.append(tuple(ring_of(ring[:, 1::-1]) for ring in points))
    return tuple(polygons)


def write_geojson(
    path: Path,
    masks: FieldMasks,
    *,
    names: Sequence[str],
    classes: Sequence[str],
    colours: Mapping[str, str],
    measurements: Sequence[Mapping[str, float]],
) -> None:
    """Write the cells of one field for QuPath, whole or not at all.

    Outlines follow the edges of pixels, so that reading them gives the same masks.

    Parameters
    ----------
    path : Path
        File ending in ``.geojson``.
    masks : FieldMasks
        Cells and nuclei; a cell without a pixel is left out.
    names, classes, measurements : sequence
        Of each cell: its id, its class ("" for none), and numbers by name; those that are not finite are left out.
    colours : mapping of str to str
        ``#rrggbb`` of each class.

    Raises
    ------
    StudyError
        If the disk is full or may not be written.
    """
    features = []
    rows = zip(masks.boxes.tolist(), masks.cells, masks.nuclei, names, classes, measurements, strict=True)
    for box, cell, nucleus, name, kind, numbers in rows:
        outline = _geometry(cell, (box[0], box[1]))
        if outline is None:
            continue
        properties: dict[str, Any] = {"objectType": "cell", "name": name}
        if kind:
            colour = colours.get(kind, "#bbbbbb")
            rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
            properties["classification"] = {"name": kind, "color": rgb}
        properties["measurements"] = {key: float(value) for key, value in numbers.items() if np.isfinite(value)}
        feature = {"type": "Feature", "id": str(uuid.uuid5(uuid.NAMESPACE_URL, name)), "geometry": outline}
        inner = _geometry(nucleus, (box[0], box[1]))
        if inner is not None:
            feature["nucleusGeometry"] = inner
        features.append({**feature, "properties": properties})
    text = json.dumps({"type": "FeatureCollection", "features": features}, ensure_ascii=False, separators=(",", ":"))
    with disk_errors(path):
        write_text(path, text + "\n")


def _geometry(bitmap: Bitmap, corner: tuple[int, int]) -> dict[str, Any] | None:
    """Polygon, or MultiPolygon of a bitmap in pieces; None for an empty one."""
    polygons = [
        [[[int(x), int(y)] for y, x in (*ring.tolist(), ring[0].tolist())] for ring in rings]
        for rings in trace(bitmap, corner)
    ]
    if not polygons:
        return None
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}
