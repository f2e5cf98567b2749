from __future__ import annotations

import pytest

from napari_dinobloom.encoders.registry import REGISTRY, find
from napari_dinobloom.errors import EncoderError


def test_every_published_name_is_known() -> None:
    wanted = {"starter"}
    wanted |= {f"DinoBloom-{s}" for s in "SBLG"} | {f"DINOv2-{s}" for s in "SBLg"} | {f"RedDino-{s}" for s in "SBL"}
    assert set(REGISTRY) == wanted
    assert all(spec.name == name for name, spec in REGISTRY.items())


@pytest.mark.parametrize(
    ("size", "dim", "millions"), [("S", 384, 22), ("B", 768, 86), ("L", 1024, 304), ("G", 1536, 1136)]
)
def test_sizes_are_those_of_the_paper(size: str, dim: int, millions: int) -> None:
    spec = find(f"DinoBloom-{size}")
    assert (spec.dim, spec.patch_size, spec.input_size, spec.grid) == (dim, 14, 224, 16)
    assert abs(spec.parameters / 1e6 - millions) < 0.01 * millions + 0.5
    assert spec.mean == (0.485, 0.456, 0.406)
    assert spec.std == (0.229, 0.224, 0.225)


def test_published_hashes() -> None:
    known = {s.file: s.sha256 for spec in REGISTRY.values() for s in spec.sources if s.sha256}
    assert known["DinoBloom-S.pth"].startswith("c2f7990b003e89bc")
    assert known["pytorch_model_l.bin"].startswith("3963b60942e18e1f")
    assert known["pytorch_model_g.bin"].startswith("16bff9c85eabb262")
    assert known["vit_base_patch14_224.dinobloom.safetensors"].startswith("37d7c42f6ac8adea")
    assert all(len(value) == 64 and int(value, 16) >= 0 for value in known.values())
    files = [s.file for spec in REGISTRY.values() for s in spec.sources]
    assert len(files) == len(set(files)), "two encoders would be looked for under one file name"


def test_names_are_found_without_capitals_and_corrected() -> None:
    assert find("dinobloom-s") is REGISTRY["DinoBloom-S"]
    with pytest.raises(EncoderError, match=r"Did you mean 'DinoBloom-B'\?.*starter"):
        find("DinoBlom-B")
