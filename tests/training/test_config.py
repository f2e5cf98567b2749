"""Presets, overrides, and settings that cannot work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from napari_dinobloom.encoders.registry import REGISTRY
from napari_dinobloom.errors import InputError
from napari_dinobloom.training.config import Batch, Config, load, presets
from napari_dinobloom.training.schedules import Schedules

PUBLISHED = {"S": (1216, 152), "B": (960, 120), "L": (448, 56), "G": (208, 26)}


def test_there_are_six_presets_and_each_survives_a_file(tmp_path: Path) -> None:
    assert presets() == ["dinobloom-fast", "dinobloom-paper", "dinov2", "reddino", "smoke", "starter"]
    for name in presets():
        config = load(name)
        assert Config.from_dict(config.to_dict()) == config
        assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(config.to_dict()))
        assert load(file) == config


@pytest.mark.parametrize("size", PUBLISHED)
def test_the_published_batches_come_with_the_size(size: str) -> None:
    config = load("dinobloom-paper", [f"model.size={size}"])
    assert (config.batch.total, config.batch.group) == PUBLISHED[size]
    assert config.model.size == size
    assert REGISTRY[config.model.start].architecture.name == size
    assert config.schedule == Schedules(batch=PUBLISHED[size][0])  # its defaults are the published ones
    assert (config.last, config.run.export_every, config.data.sampling) == (8000, 1000, "size")


def test_what_a_file_or_an_override_says_counts_more_than_the_size(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: dinobloom-paper\nmodel: {size: L}\nbatch: {total: 112}\nrun: {stop: 4000}\n")
    config = load(file)
    assert config.batch == Batch(total=112, group=56)
    assert config.schedule.batch == 112
    assert load(file, ["batch.total=224", "run.stop=0"]).batch.total == 224
    assert load(file, ["run.stop=0"]).last == 100_000


def test_the_other_presets_differ_from_the_paper_where_they_say() -> None:
    fast, red, local = load("dinobloom-fast"), load("reddino"), load("dinov2")
    assert (fast.schedule.iterations, fast.last) == (6000, 6000)
    assert fast.schedule.at(5999).lr < 2e-6 < fast.schedule.peak_lr == fast.schedule.at(400).lr
    assert (red.weights.koleo, red.heads.prototypes, red.schedule.warmup) == (0.0, 131072, 365)
    assert (local.augmentation.local_crops, local.augmentation.local_size) == (8, 98)
    assert (local.weights.dino, local.weights.local) == (pytest.approx(2 / 18), pytest.approx(16 / 18))
    assert load("starter").model.size == load("smoke").model.size == "tiny"


def test_overrides_have_the_type_of_their_setting() -> None:
    config = load(
        "smoke",
        ["schedule.base_lr=1e-3", "run.compile=yes", "run.device=0", "run.out=1e3", "schedule.weight_decay=[0, 0.4]"],
    )
    assert config.schedule.base_lr == 1e-3
    assert config.run.compile is True
    assert (config.run.device, config.run.out) == ("0", "1e3")
    assert config.schedule.weight_decay == (0.0, 0.4)


def test_a_misspelt_key_names_the_nearest() -> None:
    for topic, settings in Config().to_dict().items():
        for name in settings:
            for wrong in (f"{topic}.{name}_", f"{topic[1:]}.{name}", f"{topic}.{name[:-1]}"):
                if wrong.count(".") == 1 and wrong.partition(".")[2] not in settings:
                    with pytest.raises(InputError, match=rf"nearest is '{topic}\.{name}'"):
                        load("smoke", [f"{wrong}=1"])
    with pytest.raises(InputError, match=r"'modle\.size' is no setting; the nearest is 'model\.size'"):
        Config.from_dict({"modle": {"size": "S"}})


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("batch.total=10", r"no whole number of groups of 4 .*nearest is 8"),
        ("batch.group=1", "2 pictures or more"),
        ("masks.ratio=[0.5, 0.1]", "shares that rise"),
        ("masks.ratio=[0.0, 0.01]", "no block of 4"),
        ("masks.probability=1.5", "use 0 to 1"),
        ("masks.probability=0", "iBOT learns from masked patches"),
        ("weights.dino=-1", "none may be negative"),
        ("run.stop=21", "after the schedule's end"),
        ("schedule.warmup=20", "schedule: warmup 20"),
        ("evaluation.split=test", "would flatter"),
        ("evaluation.score=f1", "one of knn_1, knn_20"),
        ("data.store=pictures", "exclude each other"),
        ("run.log_every=0", "at least 1"),
        ("model.size=XL", "one of S, B, L, G, tiny"),
        ("run.keep=2.5", "a whole number"),
        ("run.compile=1", "true or false"),
        ("schedule.base_lr=nan", "a finite number"),
        ("schedule.base_lr=fast", "a finite number"),
        ("schedule.momentum=0.9", "2 numbers in brackets"),
        ("augmentation.local_crops=-1", "at least 0"),
        ("augmentation.local_crops=2", "give both or none"),
        ("weights.local=0.5", "give both or none"),
        ("augmentation.scale=[0.5, 1.2]", "at most 1"),
        ("augmentation.size=192", "so use 224"),
        ("augmentation.local_size=96", "a multiple of 14"),
    ],
)
def test_settings_that_cannot_work_are_refused(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load("smoke", [override])
    assert str(caught.value).startswith("smoke: ")


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere.*neither a file nor a preset.*dinobloom-paper"):
        load("nowhere")
    for text, message in (
        ("[1, 2]", "holds no topics"),
        ("run: {stop: [", "cannot be read as YAML"),
        ("base: papr", "base 'papr' is no preset"),
        ("by_size: {XL: {batch: {total: 8}}}", "by_size must hold sizes"),
        ("run: 3", "'run' is 3; it must hold keys, such as 'run"),
        ("model: 3", "'model' is 3; it must hold keys, such as 'model"),
        ("!!python/object/apply:os.getcwd []", "cannot be read as YAML"),
    ):
        file = tmp_path / "wrong.yaml"
        file.write_text(text)
        with pytest.raises(InputError, match=message) as caught:
            load(file)
        assert str(file) in str(caught.value)
    with pytest.raises(InputError, match=r"says no value; write run\.out=VALUE"):
        load("smoke", ["run.out"])
