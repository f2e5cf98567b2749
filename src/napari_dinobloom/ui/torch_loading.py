"""How torch is loaded in the process of a window: without holding the window up, and without what crashes it."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

_LIBRARY = {"linux": "libtorch_python.so", "darwin": "libtorch_python.dylib"}.get(sys.platform, "")


@contextmanager
def old_objects_left_alone() -> Iterator[None]:
    """Have the collector of garbage look at nothing but what is made meanwhile.

    A large import makes so many objects that the collector looks at all there are, several times. It holds the
    interpreter for as long as that takes: a quarter of a second for the half million objects of a viewer.
    """
    if gc.get_freeze_count():  # somebody else's, or a large import within this one
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


class _Preload(MetaPathFinder):
    """Finds torch when somebody begins to import it, and has it loaded by `_Beside`."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Beside(spec, spec.loader)
        return spec


class _Beside(Loader):
    """Loads a module as another loader does, after its library was mapped and with old objects left alone."""

    def __init__(self, spec: ModuleSpec, loader: Loader) -> None:
        self.spec, self.loader = spec, loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.spec.loader = module.__loader__ = self.loader  # whom torch asks for its sources later
        for folder in self.spec.submodule_search_locations or ():
            _map(Path(folder) / "lib" / _LIBRARY)
        with old_objects_left_alone():
            self.loader.exec_module(module)


def load_beside() -> None:
    """Have torch loaded, when it is needed, while the window goes on.

    An import holds the interpreter while the system maps a library and relocates it, for torch a quarter of a second
    or more in which no window is drawn. A foreign function does not hold it, so that the same is done through one
    first (not on Windows); the import then finds the library mapped. See also `old_objects_left_alone`. Does nothing
    where torch is loaded.
    """
    if "torch" not in sys.modules and not any(isinstance(finder, _Preload) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Preload())


def _map(library: Path) -> None:
    """Map a library and all that it needs; where that fails, the import says why in better words."""
    if _LIBRARY and library.is_file():
        opening = ctypes.CDLL(None).dlopen
        opening.argtypes, opening.restype = (ctypes.c_char_p, ctypes.c_int), ctypes.c_void_p
        opening(os.fsencode(library), os.RTLD_NOW)


def leave_triton_out() -> None:
    """Have torch believe that Triton is not installed; to be called before an optimiser is made. Takes seconds once.

    `torch.optim` imports ``torch._dynamo`` with the first optimiser, and that imports Triton where it is installed. In
    a process that has drawn with Mesa (a virtual screen, and many Linux desktops) loading Triton's library is a
    segmentation fault, as its LLVM meets that of the OpenGL driver. Nothing here is compiled by it.
    """
    if "torch._dynamo" in sys.modules or "triton" in sys.modules:
        return
    sys.modules["triton"] = None  # type: ignore[assignment]  # an import of it is an ImportError
    try:
        with old_objects_left_alone():
            import torch._dynamo  # noqa: F401  # remembers that there is none
    finally:
        del sys.modules["triton"]
