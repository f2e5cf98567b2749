"""torch is loaded for a window without holding it up."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from napari_dinobloom.ui import torch_loading
mapped = lambda: "libtorch_python" in open("/proc/self/maps").read()
torch_loading.load_beside()
torch_loading.load_beside()
assert sum(type(finder).__name__ == "_Preload" for finder in sys.meta_path) == 1
assert not mapped(), "mapped before anybody asked"
import json
assert not mapped()
kept, torch_loading._map = torch_loading._map, lambda library: (kept(library), print(library.name, mapped()))
import torch
assert not any(type(finder).__name__ == "_Preload" for finder in sys.meta_path)
assert float(torch.ones(3).sum()) == 3
torch_loading.load_beside()
assert not any(type(finder).__name__ == "_Preload" for finder in sys.meta_path)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_the_library_is_mapped_before_the_import_and_only_then() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["libtorch_python.so", "True"]


def test_a_library_that_is_not_there_is_left_to_the_import(tmp_path) -> None:  # type: ignore[no-untyped-def]
    from napari_dinobloom.ui import torch_loading

    torch_loading._map(tmp_path / "libtorch_python.so")  # raises nothing


COLLECTIONS = """
import gc
from napari_dinobloom.ui import torch_loading
many = [[] for _ in range(1_000_000)]
seen = []
def look(phase, info):
    if phase == "start" and info["generation"] == 2:
        seen.append(gc.get_freeze_count())
gc.callbacks.append(look)
torch_loading.load_beside()
import torch
assert torch.__spec__.loader is torch.__loader__ and type(torch.__loader__).__name__ == "SourceFileLoader"
assert seen and min(seen) > 1_000_000, seen
assert gc.get_freeze_count() == 0
with torch_loading.old_objects_left_alone():
    with torch_loading.old_objects_left_alone():
        pass
    assert gc.get_freeze_count() > 1_000_000, "the inner one let go of what the outer one holds"
assert gc.get_freeze_count() == 0
"""


def test_the_collector_of_garbage_leaves_the_viewers_objects_alone_during_the_import() -> None:
    done = subprocess.run([sys.executable, "-c", COLLECTIONS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
