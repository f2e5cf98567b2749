"""Forward passes: a picture per core, padded batches, one process per device."""

from __future__ import annotations

import copy
import dataclasses
import gc
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import save_file

from napari_dinobloom.cells.crop import CropPolicy
from napari_dinobloom.cells.picture_files import PictureFiles
from napari_dinobloom.encoders import device as devices
from napari_dinobloom.encoders.architecture import Architecture
from napari_dinobloom.encoders.build import load_backbone
from napari_dinobloom.encoders.compute.accelerator import FEW, AcceleratorCompute
from napari_dinobloom.encoders.compute.cpu import CpuCompute
from napari_dinobloom.encoders.compute.reading import read_ahead
from napari_dinobloom.encoders.encoder import Encoder, load_encoder
from napari_dinobloom.encoders.networks import packed
from napari_dinobloom.encoders.networks.packed import PackedLinear, PackedTransformer, PlainLinear
from napari_dinobloom.encoders.networks.vit import VisionTransformer
from napari_dinobloom.errors import EncoderError, ImageError

State = dict[str, torch.Tensor]
GATED = Architecture("gated", 64, 3, 2, 96, swiglu=True)
PLAIN = Architecture("plain", 96, 3, 3, 192, layer_scale=False)
SCALED = Architecture("scaled", 128, 3, 2, 256)


def _model(arch: Architecture) -> VisionTransformer:
    random = torch.Generator().manual_seed(3)
    model = VisionTransformer(arch, grid=4).eval().requires_grad_(False)
    for value in model.state_dict().values():
        value.copy_(torch.randn(value.shape, generator=random) * 0.15)
    return model


@pytest.fixture
def toy_file(tmp_path: Path, toy_state: State) -> Path:
    save_file(toy_state, tmp_path / "toy.safetensors")
    return tmp_path / "toy.safetensors"


@pytest.fixture
def toy(toy_file: Path) -> Encoder:
    return load_encoder(toy_file, device="cpu")


@pytest.mark.parametrize("arch", [GATED, PLAIN, SCALED], ids=lambda arch: arch.name)
@pytest.mark.parametrize("works", [True, False], ids=["packed", "plain"])
def test_one_picture_on_one_core_gives_what_the_network_gives(
    arch: Architecture, works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = _model(arch)
    x = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(4))
    if not works:
        monkeypatch.setattr(packed, "packing_works", lambda dtype: False)
    with torch.inference_mode():
        tokens, pooled = model(x), model.pooled(x)
        torch.testing.assert_close(pooled, tokens[:, 0], atol=2e-6, rtol=1e-5)
        single = PackedTransformer(copy.deepcopy(model), torch.float32)
        torch.testing.assert_close(torch.stack([single.tokens(one) for one in x]), tokens, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(torch.stack([single.pooled(one) for one in x]), pooled, atol=1e-5, rtol=1e-5)
        half = PackedTransformer(model, torch.bfloat16)
        near = torch.stack([half.pooled(one) for one in x])
    assert torch.nn.functional.cosine_similarity(near, pooled).min() > 0.999


def test_a_packed_map_is_the_plain_one() -> None:
    random = torch.Generator().manual_seed(5)
    weight, bias, x, other = (torch.randn(s, generator=random) for s in ((48, 32), (48,), (17, 32), (17, 48)))
    if not packed.packing_works(torch.float32):
        pytest.fail("This build of torch has no packed products: the CPU path would be the slow one.")
    ours, plain = (kind(weight, bias, torch.float32, 17) for kind in (PackedLinear, PlainLinear))
    torch.testing.assert_close(ours(x), plain(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.gelu(x), plain.gelu(x), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.plus(x, other), plain.plus(x, other), atol=1e-5, rtol=1e-5)


def test_wrong_packed_products_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    packed.packing_works.cache_clear()
    monkeypatch.setattr(PackedLinear, "gelu", lambda self, x: self(x))
    assert not packed.packing_works(torch.float32)
    packed.packing_works.cache_clear()


@pytest.mark.parametrize("threads", [1, 3, 40])
def test_the_number_of_cores_does_not_change_a_bit(toy_file: Path, toy_crops: np.ndarray, threads: int) -> None:
    before = torch.get_num_threads()
    compute = CpuCompute(load_backbone(toy_file), "float32", threads)
    found = np.concatenate(list(compute.stream([toy_crops[:4], toy_crops[4:]], "pooled")))
    one = CpuCompute(load_backbone(toy_file), "float32", 1)
    np.testing.assert_array_equal(found, np.concatenate(list(one.stream([toy_crops], "pooled"))))
    assert torch.get_num_threads() == before
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_worker_has_the_cores_it_is_given(
    toy_file: Path, toy_crops: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More threads than cores would wait for each other: half as fast again in the benchmark."""
    seen: set[int] = set()
    pooled = PackedTransformer.pooled

    def watched(self: PackedTransformer, x: torch.Tensor) -> torch.Tensor:
        seen.add(torch.get_num_threads())
        return pooled(self, x)

    monkeypatch.setattr(PackedTransformer, "pooled", watched)
    for threads, each in ((2, 1), (40, 3)):
        seen.clear()
        list(CpuCompute(load_backbone(toy_file), "float32", threads).stream([toy_crops], "pooled"))
        assert seen == {each}


def test_pooling_with_the_mean_patch(toy: Encoder, toy_file: Path, toy_crops: np.ndarray) -> None:
    both = load_encoder(toy_file, device="cpu", pooling="class+mean")
    assert (both.dim, both.pooling, toy.pooling) == (64, "class+mean", "class")
    expected = np.concatenate([toy.embed(toy_crops), toy.patch_tokens(toy_crops).mean((1, 2))], axis=1)
    np.testing.assert_allclose(both.embed(toy_crops), expected, atol=1e-5)
    with pytest.raises(EncoderError, match="Pooling 'max' is unknown"):
        load_encoder(toy_file, pooling="max")  # type: ignore[arg-type]


def test_the_key_covers_what_decides_the_numbers(
    toy: Encoder, toy_file: Path, tmp_path: Path, toy_state: State
) -> None:
    others = {
        "bf16": load_encoder(toy_file, device="cpu", precision="bf16").key,
        "pooling": load_encoder(toy_file, device="cpu", pooling="class+mean").key,
    }
    save_file({key: value + 1e-3 for key, value in toy_state.items()}, tmp_path / "other.safetensors")
    others["weights"] = load_encoder(tmp_path / "other.safetensors", device="cpu").key
    spec = dataclasses.replace(toy.spec, interpolation="bicubic")
    others["resize"] = Encoder(spec, toy.sha256, None, "cpu", "float32", "class").key  # type: ignore[arg-type]
    others["device"] = Encoder(toy.spec, toy.sha256, None, "cuda:1", "float32", "class").key  # type: ignore[arg-type]
    assert len({toy.key, *others.values()}) == 6
    assert load_encoder(toy_file, device="cpu").key == toy.key
    several = Encoder(toy.spec, toy.sha256, None, "cpu,cpu", "float32", "class")  # type: ignore[arg-type]
    assert several.key == toy.key


def test_a_store_is_filled_and_its_shape_checked(toy: Encoder, toy_crops: np.ndarray, tmp_path: Path) -> None:
    store = np.memmap(tmp_path / "x", np.float32, "w+", shape=(11, 32))
    toy.embed_to(toy_crops, store)
    np.testing.assert_array_equal(store, toy.embed(toy_crops))
    with pytest.raises(EncoderError, match=r"shape \(11, 31\); it needs \(11, 32\)"):
        toy.embed_to(toy_crops, np.empty((11, 31), np.float32))


def test_zarr_arrays_and_files_are_crops(toy: Encoder, toy_crops: np.ndarray, tmp_path: Path) -> None:
    import zarr
    from PIL import Image

    stored = zarr.create_array(tmp_path / "crops.zarr", shape=toy_crops.shape, chunks=(4, 224, 224, 3), dtype="uint8")
    stored[:] = toy_crops
    np.testing.assert_array_equal(toy.embed(stored), toy.embed(toy_crops))
    for number, picture in enumerate(toy_crops[:3]):
        Image.fromarray(picture).resize((300, 280), Image.Resampling.NEAREST).save(tmp_path / f"{number}.png")
    files = PictureFiles([tmp_path / f"{number}.png" for number in range(3)])
    sized = [Image.open(path).resize((224, 224), Image.Resampling.BILINEAR) for path in files.paths]
    np.testing.assert_array_equal(files[0:3], np.stack([np.asarray(picture) for picture in sized]))
    np.testing.assert_array_equal(toy.embed(files), toy.embed(files[0:3]))
    with pytest.raises(ImageError, match=r"nowhere\.png: no such file"):
        PictureFiles([files.paths[0], tmp_path / "nowhere.png"])
    with pytest.raises(ValueError, match="takes a list of files"):
        PictureFiles("cell.png")
    with pytest.raises(ValueError, match="crop policy 'published'"):
        PictureFiles(files.paths, CropPolicy(kind="context"))


def test_a_closed_encoder_says_so(toy: Encoder, toy_crops: np.ndarray) -> None:
    with toy:
        toy.embed(toy_crops[:1])
    with pytest.raises(EncoderError, match="was closed"):
        toy.embed(toy_crops[:1])


class _Watched:
    """Crops that count what is read."""

    dtype = np.dtype(np.uint8)

    def __init__(self, crops: np.ndarray, copies: int) -> None:
        self.crops, self.shape = crops, (len(crops) * copies, *crops.shape[1:])
        self.read: list[slice] = []

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> np.ndarray:
        self.read.append(rows)
        return self.crops[np.arange(*rows.indices(len(self))) % len(self.crops)]


def test_reading_stays_a_few_slices_ahead_and_stops_with_its_reader(toy_crops: np.ndarray) -> None:
    watched = _Watched(toy_crops, 20)
    blocks = read_ahead(watched, 4, ahead=2)
    first = next(blocks)
    time.sleep(0.1)
    assert len(watched.read) <= 4
    blocks.close()
    assert len(watched.read) <= 4
    np.testing.assert_array_equal(first, toy_crops[:4])
    whole = np.concatenate(list(read_ahead(_Watched(toy_crops, 2), 5, readers=3)))
    np.testing.assert_array_equal(whole, np.concatenate([toy_crops] * 2))


def test_an_error_of_reading_arrives_and_finished_rows_stay(toy: Encoder, toy_crops: np.ndarray) -> None:
    class Torn(_Watched):
        def __getitem__(self, rows: slice) -> np.ndarray:
            if rows.start >= 32:
                raise OSError("the disk is gone")
            return super().__getitem__(rows)

    store = np.full((44, 32), np.nan, np.float32)
    with pytest.raises(OSError, match="the disk is gone"):
        toy.embed_to(Torn(toy_crops, 4), store)
    np.testing.assert_array_equal(store[:11], toy.embed(toy_crops))


def test_closing_the_generator_stops_the_work(toy: Encoder, toy_crops: np.ndarray) -> None:
    watched = _Watched(toy_crops, 200)
    steps = toy.iter_embed(watched)
    next(steps)
    next(steps)
    steps.close()
    count = len(watched.read)
    assert count < 12
    time.sleep(0.1)
    assert len(watched.read) == count
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("embed", "read"))]


@pytest.fixture
def batched(toy_file: Path) -> AcceleratorCompute:
    """The computation of graphics cards, on a CPU: padding, halving and order are the same."""
    compute = AcceleratorCompute(load_backbone(toy_file), torch.device("cpu"), "float32")
    compute._batch = 16
    return compute


def test_padded_batches_give_each_picture_its_own_row(
    batched: AcceleratorCompute, toy: Encoder, toy_crops: np.ndarray
) -> None:
    many = np.concatenate([toy_crops] * 3)
    found = list(batched.stream([many[:16], many[16:32], many[32:]], "pooled"))
    assert [len(block) for block in found] == [16, 16, 1]
    np.testing.assert_allclose(np.concatenate(found), toy.embed(many), atol=1e-4)
    [tokens] = batched.stream([toy_crops[:3]], "tokens")
    np.testing.assert_allclose(tokens[:, 1:].reshape(3, 16, 16, 32), toy.patch_tokens(toy_crops[:3]), atol=1e-4)


def test_out_of_memory_halves_the_batch_and_goes_on(
    batched: AcceleratorCompute, toy: Encoder, toy_crops: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    forward = AcceleratorCompute._forward

    def scarce(self: AcceleratorCompute, pictures: torch.Tensor, output: Any) -> torch.Tensor:
        sizes.append(len(pictures))
        if len(pictures) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, pictures, output)

    monkeypatch.setattr(AcceleratorCompute, "_forward", scarce)
    found = np.concatenate(list(batched.stream([toy_crops], "pooled")))
    np.testing.assert_allclose(found, toy.embed(toy_crops), atol=1e-4)
    assert sizes == [16, FEW, 4, 4, 4]
    monkeypatch.setattr(
        AcceleratorCompute, "_forward", lambda *_: (_ for _ in ()).throw(RuntimeError("MPS backend out of memory"))
    )
    with pytest.raises(EncoderError, match="too little memory for a single picture"):
        list(batched.stream([toy_crops], "pooled"))
    monkeypatch.setattr(AcceleratorCompute, "_forward", lambda *_: (_ for _ in ()).throw(RuntimeError("shapes differ")))
    with pytest.raises(RuntimeError, match="shapes differ"):
        list(batched.stream([toy_crops], "pooled"))


def test_two_threads_share_a_card(batched: AcceleratorCompute, toy: Encoder, toy_crops: np.ndarray) -> None:
    wanted = toy.embed(toy_crops)
    found: list[np.ndarray] = []

    def work() -> None:
        for _ in range(3):
            found.extend(batched.stream([toy_crops], "pooled"))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    for rows in found:
        np.testing.assert_allclose(rows, wanted, atol=1e-4)


@pytest.mark.parametrize("output", ["pooled", "class+mean", "tokens"])
def test_a_pass_can_be_compiled_whole(batched: AcceleratorCompute, toy_crops: np.ndarray, output: Any) -> None:
    """What is asked of a card, as far as a CPU can tell: one graph without a break, and the same numbers."""
    whole = torch.compile(batched._forward, fullgraph=True, dynamic=False, backend="eager")
    pictures = torch.from_numpy(toy_crops[:4])
    with torch.inference_mode():
        torch.testing.assert_close(whole(pictures, output), batched._forward(pictures, output))


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_recorded_pass_gives_what_a_plain_one_gives(toy_file: Path, toy_crops: np.ndarray, precision: Any) -> None:
    wanted = load_encoder(toy_file, device="cpu").embed(toy_crops)
    compute = AcceleratorCompute(load_backbone(toy_file), torch.device("cuda:0"), precision)
    many = np.concatenate([toy_crops] * 400)
    blocks = [many[i : i + compute.block] for i in range(0, len(many), compute.block)]
    found = np.concatenate(list(compute.stream(blocks, "pooled")))
    assert compute._uses.total() > 2
    cosine = torch.nn.functional.cosine_similarity(*(torch.from_numpy(x) for x in (found[:11], wanted)))
    assert cosine.min() > (0.999 if precision == "bf16" else 1 - 1e-6)
    np.testing.assert_allclose(found[:11], found[11 * 399 :], atol=1e-4 if precision == "float32" else 0.05)
    before = torch.cuda.memory_reserved()
    compute.release()
    compute.close()
    assert torch.cuda.memory_reserved() < before


@pytest.mark.gpu
def test_the_second_card_records_on_itself(toy_file: Path, toy_crops: np.ndarray) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two graphics cards")
    many = np.concatenate([toy_crops] * 200)
    first, second = (load_encoder(toy_file, device=f"cuda:{n}", precision="float32").embed(many) for n in range(2))
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_memory_decides_the_batch(toy_file: Path) -> None:
    loaded = load_backbone(toy_file)
    batches = [
        AcceleratorCompute(copy.copy(loaded), torch.device("cpu"), "float32", max_memory=memory).block
        for memory in (1 << 20, 1 << 25, 1 << 40)
    ]
    assert batches == sorted(batches)
    assert (batches[0], batches[-1]) == (1, 32)
    for name, most in (("starter", 0.001), (toy_file, 1e-6)):
        with pytest.raises(EncoderError, match=rf"weights take .* more than the {most:g} GiB allowed"):
            load_encoder(name, device="cpu", max_memory_gib=most)


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(d) for d in devices.resolve_devices("0, cuda:1")] == ["cuda:0", "cuda:1"]
    for wanted, words in [("0,cpu", "one type"), ("0,cuda:0", "named twice"), ("0,2", "has 2 CUDA"), ("0,", "unknown")]:
        with pytest.raises(EncoderError, match=words):
            devices.resolve_devices(wanted)


@pytest.fixture(scope="module")
def pair() -> Iterator[Encoder]:
    with load_encoder("starter", device="cpu,cpu") as encoder:
        yield encoder


def test_two_processes_give_the_bits_of_one(pair: Encoder, toy_crops: np.ndarray) -> None:
    many = np.concatenate([toy_crops] * 13)[:130]
    one = load_encoder("starter", device="cpu").embed(toy_crops)
    found = pair.embed(many)
    np.testing.assert_array_equal(found, np.concatenate([one] * 13)[:130])
    assert (pair.device, pair.device_type, pair.dim) == ("cpu,cpu", "cpu", 192)
    assert pair.patch_tokens(toy_crops[:2]).shape == (2, 16, 16, 192)


def test_streams_side_by_side_keep_their_own_pictures(pair: Encoder, toy_crops: np.ndarray) -> None:
    one = load_encoder("starter", device="cpu")
    parts = [np.concatenate([toy_crops[i : i + 1]] * 40) for i in range(2)]
    wanted = [one.embed(toy_crops[i : i + 1])[0] for i in range(2)]
    found: dict[int, np.ndarray] = {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: pair.embed(parts[i])})) for i in range(2)]
    tokens = pair.iter_patch_tokens(np.concatenate([toy_crops] * 7))  # begun, and left while others work
    first = next(tokens)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, rows in found.items():
        np.testing.assert_array_equal(rows, np.broadcast_to(wanted[number], rows.shape))
    np.testing.assert_array_equal(first[:11], one.patch_tokens(toy_crops))
    tokens.close()


def test_processes_that_nobody_closed_end_with_the_encoder(toy_file: Path) -> None:
    encoder = load_encoder("starter", device="cpu,cpu")
    processes = [worker._process for worker in encoder._compute._workers]  # type: ignore[union-attr]
    folders = [Path(worker._folder.name) for worker in encoder._compute._workers]  # type: ignore[union-attr]
    assert [process.poll() for process in processes] == [None, None]
    del encoder
    gc.collect()
    assert None not in [process.poll() for process in processes]
    assert not any(folder.exists() for folder in folders)
    before = {process.pid for process in psutil.Process().children()}
    with pytest.raises(EncoderError, match="Pooling 'max' is unknown"):
        load_encoder(toy_file, device="cpu,cpu", pooling="max")  # type: ignore[arg-type]
    assert {process.pid for process in psutil.Process().children()} == before


def test_a_process_imports_nothing_from_the_folder_one_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('this is not numpy')")
    monkeypatch.chdir(tmp_path)
    with load_encoder("starter", device="cpu,cpu") as encoder:
        assert encoder.dim == 192


def test_a_killed_process_is_an_error_that_says_so(pair: Encoder, toy_crops: np.ndarray) -> None:
    pair._compute._workers[0]._process.kill()  # type: ignore[union-attr]
    with pytest.raises(EncoderError, match=r"computed on cpu ended with code -?\d+.*Load the encoder again"):
        pair.embed(np.concatenate([toy_crops] * 30))


def test_what_is_wrong_in_a_process_is_told(tmp_path: Path) -> None:
    (tmp_path / "torn.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{")
    with pytest.raises(EncoderError, match=r"torn\.safetensors"):
        load_encoder(tmp_path / "torn.safetensors", device="cpu,cpu")
