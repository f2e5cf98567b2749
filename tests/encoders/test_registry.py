from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from napari_dinobloom.encoders.architecture import ARCHITECTURES, Network
from napari_dinobloom.encoders.registry import REGISTRY, WeightSource, find, published_as, spec_of
from napari_dinobloom.errors import EncoderError


def test_every_published_name_is_known() -> None:
    wanted = {"starter", "ResNet-50", "ResNet-50-stage3", "Phikon", "CTransPath"}
    wanted |= {f"DinoBloom-{s}" for s in "SBLG"} | {f"DINOv2-{s}" for s in "SBLg"} | {f"RedDino-{s}" for s in "SBL"}
    assert set(REGISTRY) == wanted
    assert all(spec.name == name for name, spec in REGISTRY.items())


def test_every_entry_is_whole() -> None:
    for spec in REGISTRY.values():
        for field in fields(spec):
            if field.name not in ("patch_size", "positions", "terms", "gated"):
                assert getattr(spec, field.name), f"{spec.name} has no {field.name}"
        assert (spec.grid is None) == (spec.patch_size is None) == isinstance(spec.architecture, Network)
        assert all(source.url.startswith("https://") or spec.name == "starter" for source in spec.sources)
    assert {spec.name for spec in REGISTRY.values() if spec.terms} == {"Phikon", "CTransPath"}
    assert all("https://" in spec.terms for spec in REGISTRY.values() if spec.terms)


@pytest.mark.parametrize(
    ("size", "dim", "millions"), [("S", 384, 22), ("B", 768, 86), ("L", 1024, 304), ("G", 1536, 1136)]
)
def test_sizes_are_those_of_the_paper(size: str, dim: int, millions: int) -> None:
    spec = find(f"DinoBloom-{size}")
    assert (spec.dim, spec.patch_size, spec.input_size, spec.grid) == (dim, 14, 224, 16)
    assert abs(spec.parameters / 1e6 - millions) < 0.01 * millions + 0.5
    assert spec.mean == (0.485, 0.456, 0.406)
    assert spec.std == (0.229, 0.224, 0.225)
    assert (spec.positions, find(f"DINOv2-{size}").positions) == (None, "hub")


def test_published_hashes() -> None:
    known = {s.file: s.sha256 for spec in REGISTRY.values() for s in spec.sources if s.sha256}
    assert known["DinoBloom-S.pth"].startswith("c2f7990b003e89bc")
    assert known["pytorch_model_l.bin"].startswith("3963b60942e18e1f")
    assert known["pytorch_model_g.bin"].startswith("16bff9c85eabb262")
    assert known["vit_base_patch14_224.dinobloom.safetensors"].startswith("37d7c42f6ac8adea")
    assert known["dinov2_vits14_pretrain.pth"].startswith("b938bf1bc15cd2ec")
    assert all(len(value) == 64 and int(value, 16) >= 0 for value in known.values())
    files = {s.file: s for spec in REGISTRY.values() for s in spec.sources}
    assert all(files[s.file] == s for spec in REGISTRY.values() for s in spec.sources), "one name for two files"


def test_a_hash_agrees_as_far_as_it_is_known() -> None:
    whole, part, none = (
        WeightSource("https://x", "a", sha256="ab" * 32),
        WeightSource("https://x", "a", sha256_prefix="abab"),
        WeightSource("https://x", "a"),
    )
    assert (whole.agrees("ab" * 32), whole.agrees("ab" * 31 + "ac")) == (True, False)
    assert (part.agrees("ab" * 31 + "ac"), part.agrees("ac" * 32)) == (True, False)
    assert none.agrees("ab" * 32) is None
    assert find("resnet-50").sources[0].sha256_prefix == "11ad3fa6"
    assert find("resnet-50").sources[0].file.startswith("resnet50-11ad3fa6")


def test_names_are_found_without_capitals_and_corrected() -> None:
    assert find("dinobloom-s") is REGISTRY["DinoBloom-S"]
    for name, meant in (("DinoBlom-B", "DinoBloom-B"), ("dinobloom_b", "DinoBloom-B"), ("reddino_s", "RedDino-S")):
        with pytest.raises(EncoderError, match=rf"Did you mean '{meant}'\?.*starter"):
            find(name)


def test_a_model_of_timm_is_found_by_timms_name() -> None:
    spec = find("timm:vit_small_patch16_224.augreg_in21k")
    assert (spec.dim, spec.patch_size, spec.input_size, spec.grid, spec.pooling) == (384, 16, 224, 14, "class")
    assert (spec.mean, spec.std, spec.interpolation) == ((0.5,) * 3, (0.5,) * 3, "bicubic")
    assert spec.licence == "apache-2.0"
    assert not spec.terms
    assert spec.sources[0].file == "vit_small_patch16_224.augreg_in21k.safetensors"
    assert find("vit_small_patch16_224.augreg_in21k") == spec
    assert find("resnet18").name.startswith("timm:resnet18.")
    assert find("vgg16").name.startswith("timm:vgg16.")
    convolutional = find("resnet50.a1_in1k")
    assert (convolutional.dim, convolutional.grid) == (2048, None)
    assert "dinov3-license" in find("timm:vit_small_patch16_dinov3.lvd1689m").terms
    for wrong in ("timm:vit_smal_patch16_224", "vit_small_patch16_224.nowhere", "timm:"):
        with pytest.raises(EncoderError, match="timm has no weights named"):
            find(wrong)


def test_models_of_timm_that_lie_elsewhere_or_see_what_is_not_square() -> None:
    [source] = find("timm:gcvit_xtiny.in1k").sources
    assert source.url.startswith("https://github.com/")
    assert source.url.endswith("gcvit_xtiny_224_nvidia-274b92b7.pth")
    assert source.file == "gcvit_xtiny.in1k.pth"
    with pytest.raises(EncoderError, match=r"sapiens2\.fb of timm sees pictures of 768 x 1024 px"):
        find("timm:vit_base_patch16_sapiens2.fb")


def test_no_publisher_of_an_entry_asks_for_an_account() -> None:
    assert not any(spec.gated for spec in REGISTRY.values())


def test_a_hash_names_the_encoder_that_is_published_with_it() -> None:
    found = published_as("7c998680060c8743551a412583fac689db43cec07053b72dfec6dcd810113539")
    assert found is REGISTRY["CTransPath"]
    assert published_as("0" * 64) is None


def test_a_file_of_ones_own_is_seen_as_its_architecture_is_used() -> None:
    own = spec_of(ARCHITECTURES["B"], "mine", note="A file.")
    assert (own.name, own.dim, own.grid, own.licence, own.sources, own.terms) == ("mine", 768, 16, "unknown", (), "")
    cut = spec_of(Network("ResNet-50-stage3"), "cut")
    assert (cut.name, cut.dim, cut.pooling, cut.licence) == ("cut", 1024, "mean", "unknown")


def test_a_vit_b_16_is_used_as_nobody_guesses() -> None:
    with pytest.raises(EncoderError, match=r"mine: a ViT-B/16.*--like Phikon"):
        spec_of(ARCHITECTURES["B/16"], "mine")
    phikon = spec_of(ARCHITECTURES["B/16"], "mine", like="phikon")
    assert (phikon.name, phikon.mean, phikon.terms, phikon.sources) == ("mine", (0.485, 0.456, 0.406), "", ())
    name = "timm:vit_base_patch16_224.augreg_in21k"
    timms = spec_of(Network(name), "mine", like=name)
    assert (timms.mean, timms.interpolation, timms.pooling) == ((0.5,) * 3, "bicubic", "class")
    with pytest.raises(EncoderError, match=r"mine: holds architecture S, phikon is B/16"):
        spec_of(ARCHITECTURES["S"], "mine", like="phikon")


def test_the_table_for_readers_says_the_same() -> None:
    page = (Path(__file__).parents[2] / "docs" / "encoders.md").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("| `")]
    table = {row[0].strip("`"): row for row in rows}
    for spec in REGISTRY.values():
        tokens = "none" if spec.grid is None else f"{spec.grid} x {spec.grid}"
        row = table[spec.name]
        assert (row[2], row[3], row[5]) == (str(spec.dim), tokens, f"{spec.parameters / 1e6:,.1f} M"), spec.name


def test_the_registry_needs_no_torch() -> None:
    code = "import sys; from napari_dinobloom.encoders.registry import find; find('dinobloom-b'); "
    code += "assert not {'torch', 'timm', 'torchvision', 'napari'} & set(sys.modules), sorted(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
