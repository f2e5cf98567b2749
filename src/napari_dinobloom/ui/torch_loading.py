"""How torch is loaded in the process of a window: without holding the window up, and without what crashes it."""

from __future__ import annotations

import ctypes
import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

_LIBRARY = {"linux": "libtorch_python.so", "darwin": "libtorch_python.dylib"}.get(sys.platform, "")


class _Preload(MetaPathFinder):
    """Finds nothing; has torch's libraries mapped when somebody begins to import it."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name == "torch":
            sys.meta_path.remove(self)
            spec = PathFinder.find_spec(name)
            for folder in (spec and spec.submodule_search_locations) or ():
                _map(Path(folder) / "lib" / _LIBRARY)
        return None


def load_beside() -> None:
    """Have torch's libraries loaded, when they are needed, while the window goes on.

    An import holds the interpreter while the system maps a library and relocates it, for torch a quarter of a second
    or more in which no window is drawn. A foreign function does not hold it, so that the same is done through one
    first; the import then finds the library mapped. Does nothing where torch is loaded, or on Windows.
    """
    ready = "torch" in sys.modules or any(isinstance(finder, _Preload) for finder in sys.meta_path)
    if _LIBRARY and not ready:
        sys.meta_path.insert(0, _Preload())


def _map(library: Path) -> None:
    """Map a library and all that it needs; where that fails, the import says why in better words."""
    if library.is_file():
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
        import torch._dynamo  # noqa: F401  # remembers that there is none
    finally:
        del sys.modules["triton"]
