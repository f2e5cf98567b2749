"""The script for SLURM, with stand-ins for SLURM's commands: what it starts, and when it is queued again."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from napari_dinobloom.training.config import load

SCRIPT = Path(__file__).parents[2] / "examples" / "train_on_a_cluster.sbatch"

STAND_INS = {
    "scontrol": 'echo "$*" >> "$SEEN/scontrol"; printf "node7\\nnode8\\n"',
    # What `scancel --signal=TERM JOB` does: the step gets the signal, the script does not.
    "scancel": 'echo "$*" >> "$SEEN/scancel"; kill -TERM "$(cat "$SEEN/step")"',
    # Torchrun ends with 1 when it is told to end.
    "srun": 'trap "sleep 0.2; exit 1" TERM\nprintf "%s\\n" "$@" > "$SEEN/part"; echo $$ > "$SEEN/step"; '
    'mv "$SEEN/part" "$SEEN/srun"\nfor _ in $(seq "$ROUNDS"); do sleep 0.05; done; exit "$CODE"',
}

pytestmark = pytest.mark.skipif(os.name == "nt" or shutil.which("bash") is None, reason="a script for bash")


def _start(folder: Path, *settings: str, rounds: int, code: int) -> subprocess.Popen[bytes]:
    for name, text in STAND_INS.items():
        command = folder / "bin" / name
        command.parent.mkdir(exist_ok=True)
        command.write_text(f"#!/bin/bash\n{text}\n", encoding="utf-8")
        command.chmod(0o755)
    slurm = {"JOB_ID": "123456", "NNODES": "2", "GPUS_ON_NODE": "4", "CPUS_PER_TASK": "32", "JOB_NODELIST": "node[7-8]"}
    more = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "SEEN": str(folder),
        "ROUNDS": str(rounds),
        "CODE": str(code),
    }
    more |= {f"SLURM_{name}": value for name, value in slurm.items()}
    return subprocess.Popen(["bash", str(SCRIPT), "/data/my store", "/runs/one", *settings], env=os.environ | more)


def test_what_it_starts_is_a_training_that_can_be_shared(tmp_path: Path) -> None:
    assert _start(tmp_path, "model.size=L", "run.keep=5", rounds=0, code=0).wait(20) == 0
    command = (tmp_path / "srun").read_text(encoding="utf-8").splitlines()
    asked = get_args_parser().parse_args(command[command.index("torchrun") + 1 :])
    assert (asked.nnodes, asked.nproc_per_node, asked.module) == ("2", "4", True)
    assert (asked.rdzv_backend, asked.rdzv_endpoint, asked.rdzv_id) == ("c10d", "node7:23456", "123456-0")
    assert asked.training_script == "napari_dinobloom.training"
    option, preset, *settings = asked.training_script_args
    config = load(preset, settings)
    assert (option, config.data.store, config.run.out, config.run.keep) == (
        "--config",
        "/data/my store",
        "/runs/one",
        5,
    )
    assert config.batch.total // config.batch.group % (2 * 4) == 0
    assert "requeue" not in (tmp_path / "scontrol").read_text(encoding="utf-8")


def test_told_to_end_it_tells_the_training_and_is_queued_again(tmp_path: Path) -> None:
    script = _start(tmp_path, rounds=400, code=0)
    try:
        deadline = time.monotonic() + 20
        while not (tmp_path / "srun").exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        script.send_signal(signal.SIGTERM)
        assert script.wait(20) == 1
    finally:
        script.kill()
        script.wait()
    assert (tmp_path / "scancel").read_text(encoding="utf-8") == "--signal=TERM 123456\n"
    assert (tmp_path / "scontrol").read_text(encoding="utf-8").splitlines()[-1] == "requeue 123456"


def test_a_training_that_fails_is_not_queued_again(tmp_path: Path) -> None:
    assert _start(tmp_path, rounds=0, code=3).wait(20) == 3
    assert "requeue" not in (tmp_path / "scontrol").read_text(encoding="utf-8")


def test_slurm_tells_the_script_and_not_the_training_in_time() -> None:
    said = [line for line in SCRIPT.read_text(encoding="utf-8").splitlines() if line.startswith("#SBATCH")]
    assert {"#SBATCH --requeue", "#SBATCH --signal=B:TERM@120", "#SBATCH --ntasks-per-node=1"} <= set(said)
