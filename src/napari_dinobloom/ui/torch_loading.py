"""torch's optimisers in the process of a window: they load Triton, whose LLVM crashes beside that of an OpenGL driver.

`torch.optim` imports ``torch._dynamo`` with the first optimiser, and that imports Triton where it is installed. In a
process that has drawn with Mesa (a virtual screen, and many Linux desktops) loading Triton's library is a segmentation
fault. Nothing here is compiled by it, so that it is left out before anybody asks for it.
"""

from __future__ import annotations

import sys


def leave_triton_out() -> None:
    """Have torch believe that Triton is not installed; to be called before an optimiser is made. Takes seconds once."""
    if "torch._dynamo" in sys.modules or "triton" in sys.modules:
        return
    sys.modules["triton"] = None  # type: ignore[assignment]  # an import of it is an ImportError
    try:
        import torch._dynamo  # noqa: F401  # remembers that there is none
    finally:
        del sys.modules["triton"]
