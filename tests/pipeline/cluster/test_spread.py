"""A run shared by real processes, over TLS: the same tables as by one, also when workers are killed on purpose."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from deadly import Poison, broken, fickle
from distributed.security import Security

from napari_dinobloom.io.study import Study
from napari_dinobloom.pipeline import run, segment
from napari_dinobloom.pipeline.cluster import units
from napari_dinobloom.pipeline.cluster.options import ClusterOptions
from napari_dinobloom.pipeline.cluster.spread import Spread, WorkerError
from napari_dinobloom.pipeline.cluster.start import local_cluster
from napari_dinobloom.pipeline.driver import iter_outcome
from napari_dinobloom.pipeline.workers import call

Tables = tuple[Any, np.ndarray, Any]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Certificates of an authority of our own."""
    folder, made = tmp_path_factory.mktemp("keys"), Security.temporary()
    texts = {"tls_ca": made.tls_ca_file, "tls_cert": made.tls_client_cert, "tls_key": made.tls_client_key}
    for name, text in texts.items():
        (folder / f"{name}.pem").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.pem" for name in texts}


@pytest.fixture(scope="module")
def cluster(keys: dict[str, Path]) -> Iterator[Any]:
    """Three workers of this machine."""
    with local_cluster(ClusterOptions(workers=3, **keys)) as three:
        yield three


@pytest.fixture
def there(cluster: Any, keys: dict[str, Path]) -> dict[str, Any]:
    """Options of a run by these workers."""
    return {"scheduler": cluster.scheduler_address, **keys}


@pytest.fixture(scope="module")
def alone(smears: Path, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """What a run in one process gives before the map."""
    path = tmp_path_factory.mktemp("alone") / "study.dinobloom"
    run(smears, path, until="embed")
    return _tables(path)


def _tables(path: Path) -> Tables:
    with Study.open(path, read_only=True) as study:
        cells = study.cells
        order = np.argsort(cells.obs_names)
        return cells.obs.iloc[order].copy(), np.asarray(cells.X)[order], dict(cells.uns["dinobloom"])


def _equal(one: Tables, two: Tables) -> bool:
    return len(one[0]) > 8 and one[0].equals(two[0]) and np.array_equal(one[1], two[1]) and one[2] == two[2]


def _killing(steps: Iterator[Any], moments: dict[str, Callable[[], None]]) -> None:
    """Drain a run; at the first cell or field of a step that is done, do what is said."""
    left = dict(moments)
    for report in steps:
        if report.done and report.step in left:
            left.pop(report.step)()
    assert not left


def test_all_of_it_listens_on_this_machine_only(cluster: Any) -> None:
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    heard = [c.laddr.ip for p in processes for c in p.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert len(heard) > 3
    assert set(heard) == {"127.0.0.1"}


def test_three_workers_give_the_tables_of_one_process_though_two_are_killed(
    smears: Path, tmp_path: Path, alone: Tables, cluster: Any, there: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "UNIT", 4)
    killed = []

    def kill(number: int) -> None:
        killed.append(cluster.workers[number].pid)
        psutil.Process(killed[-1]).kill()

    path = tmp_path / "s.dinobloom"
    steps = iter_outcome(smears, path, until="embed", **there)
    _killing(steps, {"segment": lambda: kill(0), "embed": lambda: kill(1)})
    assert len(set(killed)) == 2
    assert _equal(_tables(path), alone)
    assert {p.name for p in path.iterdir()} == {
        "study.json", "cells.h5ad", "crops.zarr", "masks", "embeddings", "runs"
    }  # fmt: skip
    assert not [p for p in (path / "masks").iterdir() if p.suffix != ".npz"]


@pytest.mark.parametrize("count", [2, 1])
def test_fewer_workers_give_them_too(
    count: int,
    smears: Path,
    tmp_path: Path,
    alone: Tables,
    cluster: Any,
    there: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(units, "UNIT", 4)
    cluster.scale(count)
    cluster.sync(cluster._correct_state)
    run(smears, tmp_path / "s.dinobloom", until="embed", **there)
    assert _equal(_tables(tmp_path / "s.dinobloom"), alone)


def test_a_picture_that_kills_its_workers_is_set_aside(
    smears: Path, tmp_path: Path, alone: Tables, there: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = segment._segmenters

    def poisoned(*arguments: Any) -> dict[str, Any]:
        return chosen(*arguments) | {"field3": Poison()}

    monkeypatch.setattr(segment, "_segmenters", poisoned)
    outcome = _outcome(smears, tmp_path / "s.dinobloom", **there)
    [(file, problem)] = outcome.problems
    assert file.endswith("field3.png")
    assert "its workers ended" in problem
    with Study.open(tmp_path / "s.dinobloom", read_only=True) as study:
        found = study.cells.obs.sort_index()
    columns = ["y0", "x0", "y1", "x1", "area_px", "stain_strength"]
    assert found[columns].equals(alone[0].loc[alone[0]["field"] != "field3", columns])


def _outcome(inputs: Path, out: Path, **options: Any) -> Any:
    steps = iter_outcome(inputs, out, until="segment", **options)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_task_that_raises_is_tried_again_and_then_given_back(tmp_path: Path, there: dict[str, Any]) -> None:
    with Spread(ClusterOptions(**there)) as workers:
        assert call(workers, fickle, str(tmp_path)) == "done"
        answers = dict(workers.map(broken, range(4)))
    assert [answers[i] for i in (0, 1, 3)] == [0, 10, 30]
    assert isinstance(answers[2], WorkerError)
    assert "never" in str(answers[2])


def test_a_run_whose_client_was_killed_goes_on_and_leaves_no_process(
    smears: Path, tmp_path: Path, alone: Tables, there: dict[str, Any]
) -> None:
    path = tmp_path / "s.dinobloom"
    call = [sys.executable, "-m", "napari_dinobloom", "run", str(smears), "-o", str(path), "--workers", "1"]
    client = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 200
    while not list(path.glob("masks/*.npz")) and time.monotonic() < deadline:
        time.sleep(0.05)
    workers = psutil.Process(client.pid).children(recursive=True)
    client.kill()
    client.wait()
    done = {p.name: p.stat().st_mtime_ns for p in path.glob("masks/*.npz")}
    assert done
    run(smears, path, until="embed", **there)
    assert {name: (path / "masks" / name).stat().st_mtime_ns for name in done} == done
    assert _equal(_tables(path), alone)
    assert not psutil.wait_procs(workers, timeout=30)[1]
