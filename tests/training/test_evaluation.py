"""The teacher's scores: order, sharing among processes, k-NN, probe, RankMe, the best. As a script: one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from napari_dinobloom.encoders.architecture import Architecture
from napari_dinobloom.encoders.splits import held_out
from napari_dinobloom.errors import InputError
from napari_dinobloom.training.distillation import MaskedTransformer
from napari_dinobloom.training.evaluation import Best, Scores, embed, evaluate, rank_me, read_set, score

CPU = torch.device("cpu")
COLOURS = {"blast": (180, 60, 160), "eosinophil": (220, 120, 90), "monocyte": (120, 110, 190)}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of class folders: 46 pictures of 12 x 14 pixels."""
    folder, random = tmp_path_factory.mktemp("labelled"), np.random.default_rng(0)
    for number in range(46):
        name = list(COLOURS)[number % 3]
        (folder / name).mkdir(exist_ok=True)
        pixels = random.integers(-60, 60, (12, 14, 3)) + random.integers(-40, 40, 3) + COLOURS[name]
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / name / f"{number:03d}.png")
    return folder


class _Colour(nn.Module):
    """Tokens that are a picture's mean colour, normalised, and one of noise."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x_BCYX: Tensor) -> Tensor:
        colour = x_BCYX.mean((2, 3)) * self.scale
        return torch.stack([colour, torch.rand_like(colour)], 1)


def _network() -> MaskedTransformer:
    torch.manual_seed(3)
    network = MaskedTransformer(Architecture("toy", 24, 1, 2, 32), 16)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network


def test_embeddings_are_the_class_tokens_in_the_order_of_the_table(pictures: Path) -> None:
    labelled = read_set(pictures, batch=8)
    assert labelled.share.shape == (6, 8, 224, 224, 3)
    found = embed(_Colour(), labelled, CPU)
    files = sorted(pictures.rglob("*.png"))
    assert labelled.y.tolist() == [file.parent.name for file in files]
    assert labelled.kept.tolist() == [held_out(f"{file.parent.name}/{file.name}") for file in files]
    for file, row in zip(files, found, strict=True):
        resized = np.asarray(Image.open(file).resize((224, 224), Image.Resampling.BILINEAR), np.float64)
        colour = (resized.mean((0, 1)) / 255 - (0.485, 0.456, 0.406)) / np.array((0.229, 0.224, 0.225))
        np.testing.assert_allclose(row, colour, atol=0.01)


def _process(pictures: str, out: str, rank: int, size: int) -> None:
    """What each of two processes does; what the second thinks of the scores, with wrong classes, must not count."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{out}/store", rank=rank, world_size=size)
    group = dist.group.WORLD
    labelled = read_set(pictures, batch=8, group=group)
    np.save(f"{out}/{rank}.npy", embed(_network(), labelled, CPU, group=group))
    if rank:
        labelled.y[:] = np.roll(labelled.y, 5)
    scores = evaluate(_network(), labelled, CPU, group=group)
    Path(f"{out}/{rank}.json").write_text(json.dumps({**asdict(scores), "held": len(labelled.share)}))
    dist.destroy_process_group()


def test_two_processes_give_the_numbers_of_one(pictures: Path, tmp_path: Path) -> None:
    command = [sys.executable, __file__, str(pictures), str(tmp_path)]
    started = [
        subprocess.Popen([*command, str(rank), "2"], env={**os.environ, "OMP_NUM_THREADS": "1"}) for rank in (0, 1)
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        labelled = read_set(pictures, batch=8)
        alone = embed(_network(), labelled, CPU)
        scores = evaluate(_network(), labelled, CPU)
    finally:
        torch.set_num_threads(threads)
    assert [process.wait(60) for process in started] == [0, 0]
    for rank in (0, 1):
        np.testing.assert_array_equal(np.load(tmp_path / f"{rank}.npy"), alone)
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == {**asdict(scores), "held": 3}
    assert len(np.unique(alone, axis=0)) == len(alone)


def test_scores_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(1)
    y = random.choice(["blast", "eosinophil", "monocyte"], 300, p=[0.6, 0.3, 0.1])
    X = (random.normal(size=(300, 6)) + (y == "blast")[:, None] * 0.7 + (y == "monocyte")[:, None] * -0.7).astype("f4")
    kept = random.random(300) < 0.3
    found = score(X, y, kept)
    models = {"knn_1": KNeighborsClassifier(1), "probe": LogisticRegression(C=6 * 3 / 100, max_iter=1000)}
    for name, model in models.items():
        predicted = model.fit(X[~kept].astype(np.float64), y[~kept]).predict(X[kept].astype(np.float64))
        assert getattr(found, name) == pytest.approx(f1_score(y[kept], predicted, average="weighted"))
        assert getattr(found, f"{name}_balanced") == pytest.approx(balanced_accuracy_score(y[kept], predicted))
    # Where two classes have the same votes of 20, ours takes the nearer one, scikit-learn the first.
    distance = np.linalg.norm(X[kept][:, None].astype(np.float64) - X[~kept], axis=2)
    votes = y[~kept][np.argsort(distance, axis=1)[:, :20]]
    near = np.sort(distance, axis=1)[:, :20]
    predicted = [
        max(COLOURS, key=lambda name: ((row == name).sum(), (1 / far[row == name]).sum()))
        for row, far in zip(votes, near, strict=True)
    ]
    assert found.knn_20 == pytest.approx(f1_score(y[kept], predicted, average="weighted"))
    assert found.rank_me == rank_me(X)


def test_rank_me() -> None:
    random = np.random.default_rng(2)
    assert rank_me(np.eye(7, dtype=np.float32) * 3) == pytest.approx(7, rel=1e-4)
    assert rank_me(np.outer(random.normal(size=30), random.normal(size=5)).astype("f4")) == pytest.approx(1, rel=1e-4)
    assert rank_me(np.zeros((4, 3), np.float32)) == 0
    X = random.normal(size=(40, 6)) * [9, 5, 2, 1, 0.5, 0.1]
    shares = np.sqrt(np.linalg.eigvalsh(X.T @ X))
    shares /= shares.sum()
    assert rank_me(X.astype(np.float32)) == pytest.approx(np.prod(shares**-shares), rel=1e-4)


def test_fifteen_of_a_hundred_are_kept_apart() -> None:
    kept = [held_out(f"pbc/basophil/BA_{number}.jpg") for number in range(5000)]
    assert 0.132 < np.mean(kept) < 0.168  # 3.5 standard deviations


def test_pictures_on_which_results_are_reported_are_left_out(pictures: Path) -> None:
    files = sorted(pictures.rglob("*.png"))
    names = [file.relative_to(pictures).as_posix() for file in files]  # which are kept apart is told by these
    rows = [
        f"{name},{file.parent.name},{('train', 'test')[i % 2]}"
        for i, (name, file) in enumerate(zip(names, files, strict=True))
    ]
    table = pictures / "labels.csv"
    table.write_text("\n".join(["file,cell_type,split", *rows]))
    assert len(read_set(table, batch=8).y) == len(read_set(table, "train", batch=8).y) == (len(files) + 1) // 2


def test_an_evaluation_gives_up_when_it_is_told_to(pictures: Path) -> None:
    asked = iter([False, True])
    assert evaluate(_network(), read_set(pictures, batch=8), CPU, halt=lambda: next(asked)) is None
    assert list(asked) == []


def test_a_table_is_thinned_evenly_and_too_few_are_refused(pictures: Path, tmp_path: Path) -> None:
    labelled = read_set(pictures, batch=8, most=30)
    assert len(labelled.y) == 30
    assert set(labelled.y) == set(COLOURS)
    table = tmp_path / "labels.csv"
    rows = [
        f"{file.relative_to(pictures).as_posix()},{file.parent.name},train" for file in sorted(pictures.rglob("*.png"))
    ]
    table.write_text("\n".join(["file,cell_type,split", *rows[:14]]))
    for row in rows:
        (tmp_path / row.split(",")[0]).parent.mkdir(exist_ok=True)
        (tmp_path / row.split(",")[0]).write_bytes((pictures / row.split(",")[0]).read_bytes())
    with pytest.raises(InputError, match=r"labels\.csv: 14 pictures are too few .* classes blast\. Give more"):
        read_set(table, "train")


def test_the_best_and_when_to_stop() -> None:
    best = Best(score="knn_1", patience=2)
    found = []
    for iteration, value in enumerate([0.5, 0.7, 0.7, float("nan"), 0.8, 0.6, 0.2], start=1):
        found.append((best.update(iteration * 100, Scores(value, 1, 1, 1, 1, 1, 9)), best.stop))
        best = Best(**json.loads(json.dumps(asdict(best))))  # as a checkpoint keeps it
    new, stop = zip(*found, strict=True)
    assert new == (True, True, False, False, True, False, False)
    assert stop == (False, False, False, True, False, False, True)
    assert (best.value, best.iteration) == (0.8, 500)
    assert not Best(patience=0, waited=99).stop
    with pytest.raises(InputError, match="'f1' is no score"):
        Best(score="f1")


if __name__ == "__main__":
    _process(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
