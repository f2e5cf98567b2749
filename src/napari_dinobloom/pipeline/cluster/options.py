"""Where the parallel parts of a run are done, as a user says it; none of it changes a number."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

from napari_dinobloom.errors import InputError

HERE = "127.0.0.1"


@dataclass(kw_only=True, slots=True)
class ClusterOptions:
    """Processes that share the work of a run."""

    workers: int | None = None
    """Processes of this machine, a core each; or of a `cluster` without graphics cards."""
    scheduler: str | None = None
    """Address of a scheduler that is there: ``tls://host:8786``, or ``tcp://127.0.0.1:8786``."""
    cluster: str | None = None
    """``slurm``: ask for workers as jobs."""
    gpus: int | None = None
    """Graphics cards to ask a `cluster` for, a job each."""
    cluster_config: Path | None = None
    """YAML file of arguments of `dask_jobqueue.SLURMCluster`: queue, account, walltime, cores, memory."""
    bind: str | None = None
    """Address or network interface of this machine at which scheduler and dashboard listen; None: 127.0.0.1."""
    tls_ca: Path | None = None
    """Certificate of the authority that signed those of scheduler and workers."""
    tls_cert: Path | None = None
    """Our own certificate."""
    tls_key: Path | None = None
    """Key of our own certificate."""

    def __post_init__(self) -> None:
        ways = [name for name in ("scheduler", "cluster") if getattr(self, name)]
        if len(ways) > 1 or (self.scheduler and self.workers):
            raise InputError("--scheduler names workers that are there; give it, or --workers N, or --cluster slurm.")
        if not ways and not self.workers:
            given = [f.name for f in fields(self) if getattr(self, f.name) not in (None, 0)]
            raise InputError(
                f"--{given[0].replace('_', '-')} needs --cluster slurm, --scheduler ADDRESS or --workers N beside it."
                if given
                else f"workers is {self.workers}; use 1 or more processes."
            )
        if self.workers is not None and not 1 <= self.workers <= 10_000:
            raise InputError(f"workers is {self.workers}; use 1 to 10000 processes.")
        self._check_cluster()
        self._check_tls()

    def _check_cluster(self) -> None:
        """Refuse what only a cluster of jobs can be told, and one that nobody could reach."""
        if self.cluster is None:
            for name in ("gpus", "cluster_config"):
                if getattr(self, name) is not None:
                    raise InputError(f"--{name.replace('_', '-')} belongs to --cluster slurm.")
            return
        if self.cluster != "slurm":
            raise InputError(f"cluster is {self.cluster[:40]!r}; use slurm, or start a scheduler and name it.")
        if bool(self.gpus) == bool(self.workers):
            raise InputError("--cluster slurm: say how many with --gpus N (a job each) or --workers N (a core each).")
        if self.gpus is not None and not 1 <= self.gpus <= 1024:
            raise InputError(f"gpus is {self.gpus}; use 1 to 1024.")
        if self.bind is None:
            raise InputError(
                "--cluster slurm: workers on other nodes cannot reach 127.0.0.1. Name the network interface or address "
                "of this machine that they see, such as --bind ib0 or --bind 10.1.0.4."
            )
        if self.cluster_config is not None and not Path(self.cluster_config).is_file():
            raise InputError(f"{self.cluster_config}: there is no such file. It is a YAML file of queue, account, ...")

    def _check_tls(self) -> None:
        """Refuse half a set of keys, keys without use, and an address that is none."""
        keys = {f"--{name.replace('_', '-')}": getattr(self, name) for name in ("tls_ca", "tls_cert", "tls_key")}
        if any(keys.values()) and not all(keys.values()):
            missing = ", ".join(name for name, path in keys.items() if not path)
            raise InputError(f"TLS needs --tls-ca, --tls-cert and --tls-key; {missing} is missing.")
        for name, path in keys.items():
            if path is not None and not Path(path).is_file():
                raise InputError(f"{name} {path}: there is no such file.")
        if self.scheduler is None:
            return
        address = urlsplit(self.scheduler)
        if address.scheme not in ("tcp", "tls") or not address.hostname:
            raise InputError(f"--scheduler {self.scheduler[:100]}: use tls://HOST:PORT, or tcp://127.0.0.1:PORT.")
        if address.scheme == "tls" and not self.tls_ca:
            raise InputError(f"--scheduler {self.scheduler}: give its keys with --tls-ca, --tls-cert and --tls-key.")
        if address.scheme == "tcp" and self.tls_ca:
            raise InputError(f"--scheduler {self.scheduler}: tcp:// is not encrypted; with TLS keys use tls://.")

    @property
    def local(self) -> bool:
        """Whether the workers are processes that are started on this machine."""
        return not self.scheduler and not self.cluster

    @property
    def plain_remote(self) -> bool:
        """Whether all goes over a network unencrypted: whoever can reach the scheduler can run code as its user."""
        if self.tls_ca or self.cluster:
            return False
        host = urlsplit(self.scheduler).hostname if self.scheduler else self.bind
        return not is_loopback(host or HERE)

    @classmethod
    def take(cls, asked: Mapping[str, Any]) -> tuple[Self | None, dict[str, Any]]:
        """Part the options of a run into those of this class, None where there are none, and the rest."""
        names = {f.name for f in fields(cls)}
        mine = {name: value for name, value in asked.items() if name in names and value is not None}
        rest = {name: value for name, value in asked.items() if name not in names}
        return (cls(**mine) if mine else None), rest


def is_loopback(host: str) -> bool:
    """Whether an address leads to this machine and nowhere else."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
