"""Starting workers, or finding those that are there; everything listens at 127.0.0.1 unless another place is named."""

from __future__ import annotations

import difflib
import importlib.util
import inspect
import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from napari_dinobloom.errors import InputError
from napari_dinobloom.pipeline.cluster.options import HERE, ClusterOptions

_log = logging.getLogger(__name__)

SETTINGS = {
    # Workers that may die of a task, beside the first, before it is set aside to be tried alone.
    "distributed.scheduler.allowed-failures": 1,
    # How long a worker may take to start again, on a busy machine, before it is given up.
    "distributed.deploy.lost-worker-timeout": "10 minutes",
    # Looking at every thread a hundred times a second costs some per cent of the work.
    "distributed.worker.profile.enabled": False,
    # Notes for Dask's developers, with the arguments of every task in them.
    "distributed.admin.low-level-log-length": 100,
    "distributed.admin.system-monitor.log-length": 600,
}
"""Settings of Dask for clusters of our own."""

CONNECT_S = 30
"""Seconds that a scheduler may take to answer."""

SILENT = logging.CRITICAL
"""What Dask says of lost workers and tasks is said here, once and in our words."""

QUIET = {"dashboard": False, "silence_logs": SILENT}
"""Options of a worker that has no page of its own."""

GPU = "GPU"
"""Resource that a worker with a graphics card declares."""


def check_installed(options: ClusterOptions) -> None:
    """Raise InputError where the packages are not there, before any work is done."""
    needed = ["distributed", *(["dask_jobqueue", "cryptography"] if options.cluster else [])]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"{', '.join(missing)} is not installed. Install the extra: pip install 'napari-dinobloom[cluster]'."
        )


def connect(options: ClusterOptions, ends: ExitStack) -> Any:
    """Give a `distributed.Client` of the workers that were asked for; `ends` closes what was started.

    Raises
    ------
    InputError
        If the scheduler does not answer, or a setting is not its own.
    """
    from distributed import Client

    if options.plain_remote:
        _log.warning(
            "The connection to %s is not encrypted: who can reach it can read the pictures and run code as you. "
            "Use TLS (--scheduler tls://... with --tls-ca, --tls-cert and --tls-key).",
            options.scheduler or options.bind,
        )
    if options.scheduler:
        try:
            client = Client(options.scheduler, security=security_of(options), timeout=CONNECT_S, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise InputError(
                f"--scheduler {options.scheduler}: does not answer ({str(error) or 'no time left'}). Check the "
                "address, that `dask scheduler` runs there, and its TLS keys."
            ) from error
        return ends.enter_context(client)
    if options.cluster:
        keys = security_of(options) or ends.enter_context(made_keys())
        cluster = ends.enter_context(slurm_cluster(options, keys))
    else:
        cluster = ends.enter_context(local_cluster(options))
    return ends.enter_context(Client(cluster, set_as_default=False, timeout=CONNECT_S))


def security_of(options: ClusterOptions) -> Any:
    """The TLS keys that were named, for `distributed`; None where there are none."""
    if not options.tls_ca:
        return None
    ca, cert, key = (Path(path).resolve() for path in (options.tls_ca, options.tls_cert, options.tls_key) if path)
    return _security(ca, cert, key)


@contextmanager
def made_keys() -> Iterator[Any]:
    """Make TLS keys for one run, in a folder of the home folder that only its owner can read; removed at the end."""
    from distributed.security import Security

    made = Security.temporary()
    with tempfile.TemporaryDirectory(prefix=".napari-dinobloom-keys-", dir=Path.home()) as folder:
        paths = [Path(folder) / name for name in ("ca.pem", "cert.pem", "key.pem")]
        for path, text in zip(paths, (made.tls_ca_file, made.tls_worker_cert, made.tls_worker_key), strict=True):
            path.write_text(text, encoding="utf-8")
        yield _security(*paths)


def _security(ca: Path, cert: Path, key: Path) -> Any:
    from distributed.security import Security

    both = {"cert": str(cert), "key": str(key)}
    roles = {f"tls_{role}_{what}": path for role in ("client", "scheduler", "worker") for what, path in both.items()}
    return Security(tls_ca_file=str(ca), require_encryption=True, **roles)


@contextmanager
def local_cluster(options: ClusterOptions) -> Iterator[Any]:
    """Start processes of one thread each on this machine; graphics cards go to the first of them, one each."""
    import dask
    from distributed import Nanny, Scheduler, SpecCluster
    from distributed.system import MEMORY_LIMIT

    secured, host, count = security_of(options), options.bind or HERE, options.workers or 1
    common = {"host": host, "protocol": "tls://" if secured else "tcp://", "security": secured}
    board = dashboard(host)
    listening = {"dashboard": board is not None, "dashboard_address": board}
    worker = {**common, "nthreads": 1, "memory_limit": MEMORY_LIMIT // count, **QUIET}
    cards = _cards()
    workers = {i: {"cls": Nanny, "options": {**worker, **(_card(i, cards) if cards else {})}} for i in range(count)}
    scheduler = {"cls": Scheduler, "options": {**common, **listening}}
    with (
        dask.config.set(SETTINGS),
        SpecCluster(workers=workers, scheduler=scheduler, security=secured, silence_logs=SILENT) as cluster,
    ):
        yield cluster


@contextmanager
def slurm_cluster(options: ClusterOptions, keys: Any) -> Iterator[Any]:
    """Ask SLURM for workers: with graphics cards one process a card, else one process a core; all of it encrypted.

    Parameters
    ----------
    options : ClusterOptions
        How many, and where to listen.
    keys : distributed.Security
        TLS keys in files that all nodes can read.
    """
    import dask
    from dask_jobqueue import SLURMCluster

    arguments = {"security": keys, **slurm_arguments(options)}
    jobs = options.gpus or -(-(options.workers or 1) // int(arguments["processes"]))
    with dask.config.set(SETTINGS), SLURMCluster(**arguments) as cluster:
        cluster.scale(jobs=jobs)
        yield cluster


def slurm_arguments(options: ClusterOptions) -> dict[str, Any]:
    """Arguments of `dask_jobqueue.SLURMCluster`: those of the user's file over ours.

    Raises
    ------
    InputError
        If the file is no YAML of plain names and values.
    """
    given = _config(options.cluster_config)
    place = _place(options.bind or HERE)
    cores = int(given.get("cores") or (8 if options.gpus else 1))
    ours: dict[str, Any] = {
        "cores": cores,
        "processes": 1 if options.gpus else cores,
        "memory": f"{8 * cores}GB",
        "walltime": "04:00:00",
        "scheduler_options": {**place, "dashboard_address": f"{HERE}:0" if dashboard(HERE) else None},
        "job_extra_directives": ["--gres=gpu:1"] if options.gpus else [],
        "worker_extra_args": ["--resources", f"{GPU}=1"] if options.gpus else [],
    }
    if "interface" in place:
        ours["interface"] = place["interface"]
    for name in ("job_extra_directives", "worker_extra_args"):
        given[name] = [*ours[name], *(given.get(name) or [])]
    return ours | given


def dashboard(host: str) -> str | None:
    """Where the dashboard listens, at a free port; None where what draws it is not installed."""
    return f"{host}:0" if importlib.util.find_spec("bokeh") else None


def _place(bind: str) -> dict[str, str]:
    """What was named to listen at, as the scheduler takes it: an address, or else a network interface."""
    import psutil

    if bind in psutil.net_if_addrs():
        return {"interface": bind}
    if bind.replace(".", "").isdecimal() or ":" in bind or "." in bind:
        return {"host": bind}
    raise InputError(f"--bind {bind}: this machine has no such network interface; it has {_interfaces()}.")


def _interfaces() -> str:
    import psutil

    return ", ".join(sorted(psutil.net_if_addrs()))


def _config(path: Path | None) -> dict[str, Any]:
    """The user's file of arguments."""
    if path is None:
        return {}
    import yaml

    try:
        given = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({error}).") from error
    if not isinstance(given, dict):
        raise InputError(f"{path}: must hold names and values, such as `queue: gpu`.")
    known = _arguments()
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(str(name), known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ". See the arguments of dask_jobqueue.SLURMCluster."
            raise InputError(f"{path}: {name!r} is no setting of a job{hint}")
    return given


def _arguments() -> set[str]:
    """Names of the arguments that a SLURM cluster takes."""
    from dask_jobqueue import SLURMCluster
    from dask_jobqueue.core import Job

    makers = (SLURMCluster, SLURMCluster.job_cls, Job)
    return {name for maker in makers for name in inspect.signature(maker.__init__).parameters} - {"self"}


def _cards() -> int:
    """NVIDIA graphics cards of this machine."""
    if shutil.which("nvidia-smi") is None:  # then torch need not be loaded
        return 0
    import torch

    return int(torch.cuda.device_count())


def _card(number: int, cards: int) -> dict[str, Any]:
    """Options of a worker on a machine with graphics cards: its own one, or none."""
    has = number < cards
    return {
        "env": {"CUDA_VISIBLE_DEVICES": str(number) if has else ""},
        "resources": {GPU: 1} if has else {},
    }
