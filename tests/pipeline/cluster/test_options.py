"""What is asked of a cluster is checked before any work; jobs of SLURM, and what workers must see; no processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask_jobqueue
import pytest

from napari_dinobloom.errors import InputError
from napari_dinobloom.pipeline import run
from napari_dinobloom.pipeline.cluster import sight, start
from napari_dinobloom.pipeline.cluster.options import ClusterOptions
from napari_dinobloom.pipeline.cluster.sight import check_sight, versions


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    (tmp_path / "one.pem").write_text("", encoding="utf-8")
    return tmp_path / "one.pem"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"workers": 2, "scheduler": "tcp://127.0.0.1:1"}, "--scheduler names workers that are there"),
        ({"gpus": 2}, "--gpus needs --cluster slurm"),
        ({"bind": "0.0.0.0"}, "--bind needs"),
        ({"workers": 2, "gpus": 2}, "--gpus belongs to --cluster"),
        ({"cluster": "sge", "workers": 2, "bind": "lo"}, "use slurm"),
        ({"cluster": "slurm", "bind": "lo"}, "say how many"),
        ({"cluster": "slurm", "gpus": 8}, "cannot reach 127.0.0.1"),
        ({"cluster": "slurm", "gpus": 8, "bind": "lo", "cluster_config": Path("no.yaml")}, "no such file"),
        ({"scheduler": "127.0.0.1:8786"}, "use tls://HOST:PORT"),
        ({"scheduler": "tls://node1:8786"}, "give its keys"),
        ({"workers": 2, "tls_ca": Path("ca.pem")}, "--tls-cert, --tls-key is missing"),
    ],
)
def test_what_does_not_fit_is_refused_before_a_study_is_made(
    asked: dict[str, Any], message: str, smears: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        run(smears, tmp_path / "s.dinobloom", **asked)
    assert not (tmp_path / "s.dinobloom").exists()


def test_keys_need_an_encrypted_address(pem: Path) -> None:
    keys = {"tls_ca": pem, "tls_cert": pem, "tls_key": pem}
    with pytest.raises(InputError, match="not encrypted"):
        ClusterOptions(scheduler="tcp://127.0.0.1:8786", **keys)
    assert not ClusterOptions(scheduler="tls://node1:8786", **keys).plain_remote


def test_only_a_plain_connection_to_elsewhere_is_called_open() -> None:
    assert ClusterOptions(scheduler="tcp://node1:8786").plain_remote
    assert ClusterOptions(workers=2, bind="0.0.0.0").plain_remote
    assert not ClusterOptions(scheduler="tcp://127.0.0.1:8786").plain_remote
    assert not ClusterOptions(scheduler="tcp://localhost:8786").plain_remote
    assert not ClusterOptions(scheduler="tcp://[::1]:8786").plain_remote
    assert not ClusterOptions(workers=2).plain_remote


def test_a_scheduler_that_does_not_answer_is_told_before_a_study_is_made(
    smears: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "CONNECT_S", 0.5)
    with pytest.raises(InputError, match="does not answer"):
        run(smears, tmp_path / "s.dinobloom", scheduler="tcp://127.0.0.1:9")
    assert not (tmp_path / "s.dinobloom").exists()


def test_what_is_not_installed_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(start.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"distributed, dask_jobqueue, .*napari-dinobloom\[cluster\]"):
        start.check_installed(ClusterOptions(cluster="slurm", gpus=1, bind="lo"))


@pytest.fixture
def scaled(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Jobs that SLURM, which is not here, was asked for."""
    asked: list[int] = []
    monkeypatch.setattr(dask_jobqueue.SLURMCluster, "scale", lambda self, n=0, jobs=0: asked.append(jobs))
    return asked


def test_each_graphics_card_is_a_job_that_declares_it(tmp_path: Path, scaled: list[int]) -> None:
    config = tmp_path / "site.yaml"
    config.write_text(
        "queue: gpu\naccount: haema\nwalltime: '12:00:00'\ncores: 4\nmemory: 64GB\n"
        "job_extra_directives: ['--constraint=a100']\n"
    )
    options = ClusterOptions(cluster="slurm", gpus=8, bind="127.0.0.1", cluster_config=config)
    with start.made_keys() as keys, start.slurm_cluster(options, keys) as cluster:
        script = cluster.job_script()
        address = cluster.scheduler_address
    assert not Path(keys.tls_ca_file).exists()
    assert scaled[0] == 8
    assert address.startswith("tls://127.0.0.1:")
    for line in ("-p gpu", "-A haema", "-t 12:00:00", "--cpus-per-task=4", "--mem=60G", "--gres=gpu:1"):
        assert f"#SBATCH {line}\n" in script
    assert "#SBATCH --constraint=a100\n" in script
    for part in ("--nthreads 4", "--resources GPU=1", "--protocol tls://", "--tls-key", "--tls-ca-file"):
        assert part in script
    assert "--nworkers" not in script


def test_without_cards_each_core_is_a_process(scaled: list[int]) -> None:
    options = ClusterOptions(cluster="slurm", workers=6, bind="127.0.0.1")
    with start.made_keys() as keys, start.slurm_cluster(options, keys) as cluster:
        script = cluster.job_script()
    assert scaled[0] == 6
    assert "--nthreads 1" in script
    assert "gres" not in script
    assert "GPU" not in script


@pytest.mark.parametrize(
    ("text", "message"),
    [("- a\n- b\n", "must hold names"), ("a: [", "cannot be read"), ("quue: gpu\n", "did you mean 'queue'")],
)
def test_a_file_that_is_no_configuration_is_refused(text: str, message: str, tmp_path: Path, scaled: list[int]) -> None:
    config = tmp_path / "site.yaml"
    config.write_text(text)
    options = ClusterOptions(cluster="slurm", gpus=1, bind="127.0.0.1", cluster_config=config)
    with pytest.raises(InputError, match=message):
        start.slurm_arguments(options)


def test_an_interface_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="no such network interface"):
        start.slurm_arguments(ClusterOptions(cluster="slurm", gpus=1, bind="nosuch0"))


class _Elsewhere:
    """A client whose workers see what they are told to."""

    def __init__(self, *answers: Any) -> None:
        self.answers = answers

    def run(self, task: Any, mark: str, on_error: str) -> dict[str, Any]:
        real = task(mark)
        return {f"tcp://10.0.0.{i}:1": answer(real) if callable(answer) else answer
                for i, answer in enumerate(self.answers)}  # fmt: skip


def test_workers_that_see_the_same_are_taken_and_nothing_is_left_behind(tmp_path: Path) -> None:
    check_sight(_Elsewhere(lambda real: real, lambda real: real), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda real: ("node7", "", versions(), "No such file or directory"), "node7 does not see .* all nodes share"),
        (lambda real: ("node7", "other", versions(), ""), "another file lies there"),
        (lambda real: (*real[:3], "Read-only file system"), "may not write .*Read-only"),
        (lambda real: (*real[:2], versions() | {"torch": "1.0"}, ""), "torch 1.0, here"),
        (ModuleNotFoundError("No module named 'napari_dinobloom'"), "has no napari-dinobloom"),
    ],
)
def test_a_worker_that_sees_something_else_is_told_once(answer: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"(?s)worker tcp://10.0.0.1:1.*{message}"):
        check_sight(_Elsewhere(lambda real: real, answer), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_no_error_of_the_worker(tmp_path: Path) -> None:
    _, found, _, problem = sight._seen(str(tmp_path / "no" / "mark"))
    assert found == ""
    assert "No such file" in problem
