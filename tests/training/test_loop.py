"""A training from its configuration to its exports."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from spawned import WholeTraining, spawn

from napari_dinobloom.encoders.architecture import ARCHITECTURES, Architecture
from napari_dinobloom.encoders.encoder import load_encoder
from napari_dinobloom.encoders.registry import REGISTRY
from napari_dinobloom.encoders.spec import WeightSource, vit_spec
from napari_dinobloom.errors import DinoBloomError, EncoderError, InputError, StudyError, StudyHeldError
from napari_dinobloom.training import loop
from napari_dinobloom.training.__main__ import main
from napari_dinobloom.training.batches import Batches, Pictures
from napari_dinobloom.training.begin import make_network, pictures_of
from napari_dinobloom.training.checkpoint import Checkpoints
from napari_dinobloom.training.config import Config, load
from napari_dinobloom.training.evaluation import Best, Scores
from napari_dinobloom.training.heads import IBOT_BOTTLENECK
from napari_dinobloom.training.loop import train
from napari_dinobloom.training.manifest import read_manifest
from napari_dinobloom.training.metrics import read_metrics
from napari_dinobloom.training.parallel import GO_ON, World
from napari_dinobloom.training.prepare import prepare

SETTINGS = [
    "schedule.iterations=4",
    "schedule.warmup=1",
    "batch.total=4",
    "batch.group=2",
    "data.generated=6",
    "run.export_every=2",
    "run.checkpoint_every=2",
    "run.log_every=1",
    "heads.prototypes=32",
]


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of a few thousand weights in the place of the tiny one."""
    monkeypatch.setitem(ARCHITECTURES, "tiny", Architecture("tiny", 32, 2, 2, 64, layer_scale=False))


def _config(out: Path, *more: str) -> Config:
    return load("smoke", [*SETTINGS, f"run.out={out}", *more])


def _weights(path: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(path)


def test_a_training_that_was_stopped_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _weights(train(_config(tmp_path / "whole")))
    stopped = _config(tmp_path / "parts", "run.stop=2")
    assert train(stopped).name == "teacher-0000002.safetensors"
    path = train(_config(tmp_path / "parts"))
    assert path.name == "teacher-0000004.safetensors"
    parts = _weights(path)
    assert set(parts) == set(whole)
    for name, value in whole.items():
        assert torch.equal(parts[name], value), name
    lines = read_metrics(tmp_path / "parts" / "metrics.jsonl")
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4]
    assert all(np.isfinite(line["total"]) for line in lines)
    encoder = load_encoder(path, device="cpu")
    assert encoder.embed(np.full((1, 224, 224, 3), 200, np.uint8)).shape == (1, 32)


def test_a_training_that_lost_its_last_export_makes_it_again(tmp_path: Path) -> None:
    path = train(_config(tmp_path / "run", "run.stop=1"))
    before = path.read_bytes()
    path.unlink()
    assert train(_config(tmp_path / "run", "run.stop=1")) == path
    assert path.read_bytes() == before


def test_a_resumed_training_is_as_patient_as_it_is_told_now(tmp_path: Path) -> None:
    train(_config(tmp_path, "run.stop=1", "evaluation.patience=3"))
    state = tmp_path / "checkpoints" / "iteration-00000001" / "state.json"
    about = json.loads(state.read_text())
    about["extra"]["best"] |= {"value": 0.5, "iteration": 1, "waited": 2}
    state.write_text(json.dumps(about))
    alone = World(0, 1, 0, torch.device("cpu"))
    for more, best in (
        ("evaluation.patience=7", Best("knn_20", 7, 0.5, 1, 2)),
        ("evaluation.score=probe", Best("probe")),
    ):
        run = loop.Run(_config(tmp_path, more), alone)
        run.close()
        assert (run.iteration, run.best) == (1, best)
    assert train(_config(tmp_path, "evaluation.patience=2")).name == "teacher-0000001.safetensors"  # it had ended


def test_a_signal_saves_the_iteration_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Signalled(loop.StopSignal):
        def __enter__(self) -> Signalled:
            self.seen = True
            return self

        def __exit__(self, *_: object) -> None:
            pass

    monkeypatch.setattr(loop, "StopSignal", Signalled)
    assert train(_config(tmp_path / "run")).name == "teacher-0000001.safetensors"
    assert [path.name for path in (tmp_path / "run" / "checkpoints").glob("iter*")] == ["iteration-00000001"]


def test_another_configuration_is_refused_in_the_same_folder(tmp_path: Path) -> None:
    train(_config(tmp_path / "run", "run.stop=1"))
    with pytest.raises(InputError, match=r"heads\.prototypes: 32 then, 64 now.*run\.out=FOLDER"):
        train(_config(tmp_path / "run", "heads.prototypes=64"))
    train(_config(tmp_path / "run", "run.stop=1", "run.keep=2"))


def test_undefined_losses_end_it_with_the_batch_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "run_step", _undefined(loop.run_step))
    with pytest.raises(DinoBloomError, match=r"not finite in 3 iterations in a row, up to 3.*rank0\.safetensors"):
        train(_config(tmp_path / "run"))
    [saved] = (tmp_path / "run").glob("not-finite-*.safetensors")
    assert {"crops.0", "masks.0"} <= set(_weights(saved))


def _undefined(step):  # type: ignore[no-untyped-def]
    def run(model, *rest):  # type: ignore[no-untyped-def]
        with torch.no_grad():
            next(model.student.parameters()).fill_(torch.nan)
        return step(model, *rest)

    return run


def test_shares_of_processes_are_those_of_one(tmp_path: Path) -> None:
    config = _config(tmp_path, "augmentation.local_crops=2", "weights.local=0.5")
    pictures = pictures_of(config)
    one = Batches(config, pictures, World(0, 1, 0, torch.device("cpu")))
    two = [Batches(config, pictures, World(rank, 2, rank, torch.device("cpu"))) for rank in range(2)]
    for iteration in (0, 3):
        whole = one.groups(iteration)
        shares = [group for batches in two for group in batches.groups(iteration)]
        assert len(whole) == len(shares) == 2
        for ours, theirs in zip(whole, shares, strict=True):
            assert torch.equal(ours.crops, theirs.crops)
            assert ours.local is not None
            assert theirs.local is not None
            assert torch.equal(ours.local, theirs.local)
            assert torch.equal(ours.masks, theirs.masks)
    assert not torch.equal(one.groups(0)[0].crops, one.groups(1)[0].crops)
    with pytest.raises(InputError, match=r"2 groups .* shared evenly by 3 processes: change one, or start 2"):
        Batches(config, pictures, World(0, 3, 0, torch.device("cpu")))
    for batches in (one, *two):
        batches.close()


def test_weights_of_data_sets(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"data\.weights names bmc; the pictures are of generated"):
        train(_config(tmp_path / "run", "data.weights={bmc: 1}"))
    config = _config(tmp_path, "data.weights={a: 3, b: 1}")
    seen: list[int] = []

    def read(rows: np.ndarray) -> np.ndarray:
        seen.extend(rows.tolist())
        return np.zeros((len(rows), 224, 224, 3), np.uint8)

    batches = Batches(config, Pictures(read, {"a": 10, "b": 90}, ""), World(0, 1, 0, torch.device("cpu")))
    for iteration in range(100):
        batches.groups(iteration)
    batches.close()
    assert 0.65 < np.mean(np.array(seen) < 10) < 0.85  # 3 of 4; its size would be 1 of 10


def test_heads_of_a_file_must_be_those_that_are_configured(tmp_path: Path) -> None:
    network = make_network(_config(tmp_path))
    assert network.dino_head.mlp[0].out_features == 256
    assert network.ibot_head.last_layer.weight_v.shape == (32, IBOT_BOTTLENECK)
    path = tmp_path / "released.pth"
    torch.save({"teacher": network.state_dict()}, path)
    same = make_network(_config(tmp_path, f"model.start={path}"))
    assert torch.equal(same.dino_head.last_layer.weight_v, network.dino_head.last_layer.weight_v)
    with pytest.raises(InputError, match=r"released\.pth has heads .* set heads.prototypes=32 heads.bottleneck=64"):
        make_network(_config(tmp_path, f"model.start={path}", "heads.prototypes=64"))
    bare = tmp_path / "bare.bin"
    torch.save(network.backbone.state_dict(), bare)
    assert make_network(_config(tmp_path, f"model.start={bare}")).dino_head.mlp[0].out_features == 256


def test_a_stop_during_an_evaluation_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def evaluate(*_: object, halt: Callable[[], bool], **__: object) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        assert halt()
        asked.append(1)

    monkeypatch.setattr(loop, "evaluate", evaluate)
    monkeypatch.setattr(loop, "read_set", lambda *_, **__: object())
    path = train(_config(tmp_path, "evaluation.labelled=x.csv", "run.evaluate_every=1"))
    assert path.name == "teacher-0000001.safetensors"
    assert asked == [1]
    assert (tmp_path / "checkpoints" / "iteration-00000001").is_dir()


def test_it_is_not_measured_on_pictures_that_it_trains_on(tmp_path: Path) -> None:
    table, random = tmp_path / "labels.csv", np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(random.integers(0, 255, (16, 16, 3), np.uint8)).save(tmp_path / f"{i}.png")
    table.write_text("\n".join(["file,cell_type", *(f"{i}.png,{'ab'[i % 2]}" for i in range(24))]))
    prepare(read_manifest(table), tmp_path / "store")
    asked = ["data.generated=0", f"data.store={tmp_path / 'store'}", f"evaluation.labelled={table}"]
    with pytest.raises(InputError, match=r"trained on, such as .*7\.png"):
        train(_config(tmp_path / "run", *asked))
    assert not (tmp_path / "run").exists()


def _scores(knn_20: float) -> Scores:
    return Scores(**dict.fromkeys([one.name for one in fields(Scores)], 0.1) | {"knn_20": knn_20})


def test_the_best_teacher_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.5, 0.9, 0.7, 0.6])
    monkeypatch.setattr(loop, "read_set", lambda *_, **__: object())
    monkeypatch.setattr(loop, "evaluate", lambda *_, **__: _scores(next(scores)))
    config = _config(tmp_path, "evaluation.labelled=x.csv", "run.evaluate_every=1", "run.export_every=1", "run.keep=1")
    train(config)
    best = tmp_path / loop.BEST_TEACHER
    assert best.read_bytes() == (tmp_path / "teacher-0000002.safetensors").read_bytes()
    there = sorted(path.name for path in (tmp_path / "checkpoints").glob("iter*"))
    assert there == ["iteration-00000002", "iteration-00000004"]
    assert load_encoder(best, device="cpu").spec.dim == 32


def test_a_best_teacher_that_was_lost_in_a_kill_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "read_set", lambda *_, **__: object())
    monkeypatch.setattr(loop, "evaluate", lambda *_, **__: _scores(0.5))
    asked = ["evaluation.labelled=x.csv", "run.evaluate_every=1"]
    train(_config(tmp_path, "run.stop=1", *asked))
    before = (tmp_path / loop.BEST_TEACHER).read_bytes()
    (tmp_path / loop.BEST_TEACHER).unlink()
    train(_config(tmp_path, "run.stop=1", *asked))
    assert (tmp_path / loop.BEST_TEACHER).read_bytes() == before


def test_other_pictures_are_told_when_a_training_goes_on(tmp_path: Path) -> None:
    train(_config(tmp_path, "run.stop=1"))
    state = tmp_path / "checkpoints" / "iteration-00000001" / "state.json"
    about = json.loads(state.read_text())
    about["extra"]["pictures"] = "of another store"
    state.write_text(json.dumps(about))
    with pytest.raises(InputError, match="holds a training on other pictures"):
        train(_config(tmp_path))


def test_settings_that_came_later_have_their_defaults_in_an_older_folder(tmp_path: Path) -> None:
    train(_config(tmp_path, "run.stop=1"))
    path = tmp_path / loop.CONFIG
    before = json.loads(path.read_text())
    del before["data"]["block"], before["masks"]
    path.write_text(json.dumps(before))
    assert train(_config(tmp_path, "run.stop=2", "data.threads=1")).name == "teacher-0000002.safetensors"
    path.write_text("[]")
    with pytest.raises(InputError, match="is damaged"):
        train(_config(tmp_path))


def test_one_folder_is_for_one_training(tmp_path: Path) -> None:
    alone = World(0, 1, 0, torch.device("cpu"))
    run = loop.Run(_config(tmp_path), alone)
    with pytest.raises(StudyHeldError, match=r"trains there.*run\.out=FOLDER"):
        loop.Run(_config(tmp_path), alone)
    run.close()
    loop.Run(_config(tmp_path), alone).close()


def test_steps_that_changed_nothing_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, skipped = loop.run_step, iter([True, False, False, False])
    monkeypatch.setattr(loop, "run_step", lambda *given: replace(step(*given), skipped=next(skipped)))
    train(_config(tmp_path))
    assert [line["skipped"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [1, 0, 0, 0]


def test_a_disk_that_is_full_once_costs_one_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    commit, calls = Checkpoints._commit, []

    def full(self: Checkpoints, part: Path, path: Path, text: str) -> None:
        calls.append(path)
        if len(calls) in fails:
            raise OSError(errno.ENOSPC, "No space left on device")
        commit(self, part, path, text)

    monkeypatch.setattr(Checkpoints, "_commit", full)
    fails = {1}
    train(_config(tmp_path / "once", "run.checkpoint_every=1"))
    assert "iteration-00000001" in caplog.text
    assert len(list((tmp_path / "once" / "checkpoints").glob("iter*"))) == 3
    fails = {3, 4}
    calls.clear()
    with pytest.raises(StudyError, match="iteration-00000004"):
        train(_config(tmp_path / "twice", "run.checkpoint_every=1"))
    assert (tmp_path / "twice" / "checkpoints" / "iteration-00000002").is_dir()


@pytest.mark.parametrize("what", ["slow export", "error"])
def test_two_processes_from_the_start_to_the_end(tmp_path: Path, what: str) -> None:
    found = spawn(2, tmp_path, WholeTraining(tmp_path / "run", SETTINGS, what))
    there = [path.name for path in sorted((tmp_path / "run" / "checkpoints").glob("iter*"))]
    if what == "error":
        assert found == [[f"ProcessError: The training ended because of {WholeTraining.SAID}. {GO_ON}"],
                         ["ValueError: picture 7 is broken"]]  # fmt: skip
        assert there == ["iteration-00000002"], "what was being written when the error came is lost"
    else:
        assert [one[0] for one in found] == ["teacher-0000004.safetensors"] * 2
        assert there == ["iteration-00000002", "iteration-00000004"]


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--config", "smoke", "heads.prototypez=3"]) == 2
    assert "nearest is 'heads.prototypes'" in capsys.readouterr().err
    assert main(["--config", "dinobloom-paper"]) == 2
    assert "data.store=FOLDER" in capsys.readouterr().err
    assert not Path("training-run").exists()
    assert main(["--config", "dinobloom-paper", "--dry-run", "8", "model.size=G"]) == 0
    said = capsys.readouterr().out
    assert "1134.8 M parameters" in said
    assert "state 2.8 GiB" in said  # 20 bytes of each parameter on 8 cards
    assert "8 groups of 26" in said
    assert main(["--config", "smoke", *SETTINGS, f"run.out={tmp_path / 'run'}", "run.stop=1"]) == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["heads"]["prototypes"] == 32


def test_it_starts_from_a_file_of_the_right_size_and_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(_config(tmp_path / "first", "run.stop=1"))
    network = loop.make_network(_config(tmp_path, f"model.start={first}"))
    stored = _weights(first)
    torch.testing.assert_close(network.backbone.cls_token, stored["cls_token"])
    with pytest.raises(InputError, match=r"is a tiny, but model\.size is S"):
        loop.make_network(_config(tmp_path, f"model.start={first}", "model.size=S"))
    source = WeightSource("https://example.org/t.safetensors", "t.safetensors", None, "0" * 64)
    spec = vit_spec("Toy", "tiny", licence="none", sources=(source,))
    monkeypatch.setitem(REGISTRY, "Toy", spec)
    monkeypatch.setenv("NAPARI_DINOBLOOM_CACHE", str(tmp_path))
    (tmp_path / "t.safetensors").write_bytes(first.read_bytes())
    with pytest.raises(EncoderError, match="sha256"):
        loop.make_network(_config(tmp_path, "model.start=Toy"))
