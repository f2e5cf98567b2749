"""Names of cells: those too large for a platelet, and those unlike the atlas."""

from __future__ import annotations

import numpy as np
import pandas as pd

from napari_dinobloom.pipeline.classify import larger_than_platelets, name_cells
from napari_dinobloom.predict.atlas import Atlas
from napari_dinobloom.report.differential import FAR_NOTE, differential
from napari_dinobloom.report.quantify import pack_confusion


def test_size_is_judged_in_micrometres() -> None:
    obs = pd.DataFrame({"area_px": [4900, 5100, 5100], "pixel_size_um": [0.1, 0.1, 0.05]})
    assert larger_than_platelets(obs).tolist() == [False, True, False]


def test_a_large_cell_is_never_a_platelet() -> None:
    atlas = Atlas.bundled("starter", "context")
    X = atlas.X[atlas.y == "platelet"][:20]
    source = ["0" * 16] * len(X)
    large = np.arange(len(X)) % 2 == 0
    named = name_cells(atlas, X, source, large)
    assert (named.loc[~large, "predicted"] == "platelet").all()
    assert (named.loc[large, "predicted"] != "platelet").all()
    alone = atlas.without("platelet").classify(X[large], source[: large.sum()])
    assert named.loc[large, "distance"].to_numpy(float).tolist() == alone["distance"].tolist()


def test_a_cell_unlike_all_reference_cells_is_left_unclassified() -> None:
    atlas = Atlas.bundled("starter", "context")
    X = np.stack([atlas.X[0], atlas.X[0] + 10])
    named = name_cells(atlas, X, ["0" * 16] * 2, np.zeros(2, bool))
    assert named["abstained"].tolist() == [False, True]


def test_a_slide_unlike_the_atlas_is_not_corrected() -> None:
    from anndata import AnnData

    atlas = Atlas.bundled("starter", "context")
    n = 40
    obs = pd.DataFrame(
        {
            "cell_id": [f"f:{i:05d}" for i in range(1, n + 1)],
            "field": "f",
            "slide": "s",
            "patient": "p",
            "predicted": "lymphocyte",
            "quality": "ok",
            "distance": np.where(np.arange(n) < 5, 9.0, 1.0),
        },
        index=[f"f:{i:05d}" for i in range(1, n + 1)],
    )
    near = AnnData(obs=obs, uns={"dinobloom": {"confusion": pack_confusion(atlas.confusion_table())}})
    assert differential(near)["corrected"].notna().any(), "without a limit nothing is known to be far"
    near.uns["dinobloom"]["distance_limit"] = 3.0
    lines = differential(near)
    assert lines["corrected"].isna().all()
    assert lines["note"].str.contains(FAR_NOTE).all()
