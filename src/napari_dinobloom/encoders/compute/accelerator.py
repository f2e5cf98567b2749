"""A graphics card (CUDA) or Apple's MPS: fixed padded batches, prepared on the device, overlapped with reading.

Forward passes have one of two shapes, a small one for up to eight pictures on demand and a large one: what is missing
is padded. Out of memory, the large one is halved and the work goes on. On CUDA uint8 pictures and results travel
through pinned memory while other batches are computed, and the pass is recorded as a CUDA graph; it is compiled where
the pictures at hand gain more time than the compiler takes.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from napari_dinobloom.encoders.compute.base import Float32, Output, Pictures, Preparation, reduce
from napari_dinobloom.encoders.compute.reading import close_reading
from napari_dinobloom.encoders.device import free_memory
from napari_dinobloom.errors import EncoderError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from napari_dinobloom.encoders.build import Loaded
    from napari_dinobloom.encoders.device import Precision

LARGEST_BATCH = {"cuda": 256, "mps": 32}
"""Pictures per pass where memory allows; more do not make a ViT faster."""

COMPILE_SECONDS, COMPILE_GAIN = 60.0, 0.2
"""What compiling is taken to cost, and the share of the time that it saves."""

FEW = 8
"""Size of the batch to which single pictures on demand are padded."""

RECORD_AFTER = 2
"""Passes of one shape before it is recorded: recording costs as much as some passes."""

LIVE_TENSORS = 24
"""Tensors of (tokens, D) that a block is taken to hold at once, its feed-forward part included."""

MANY = 16
"""Passes of a job after which it gives its memory back when it ends."""

Key: TypeAlias = "tuple[Output, tuple[int, ...]]"
Result: TypeAlias = "tuple[Tensor, torch.cuda.Event | None]"
"""Values on the CPU, and what says that they have arrived."""

logger = logging.getLogger(__name__)


class AcceleratorCompute:
    """A network on a graphics card.

    Parameters
    ----------
    loaded : Loaded
        The network; its weights are taken over.
    device : torch.device
        Of type cuda or mps.
    precision : {"float32", "bf16"}
        Number type of weights and products.
    max_memory : int, optional
        Bytes that may be taken on the device; None takes half of what is free.
    """

    def __init__(
        self, loaded: Loaded, device: torch.device, precision: Precision, max_memory: int | None = None
    ) -> None:
        import torch

        self.spec, self.device = loaded.spec, device
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        try:
            self._prepare = Preparation(loaded.spec, device, self._dtype)
            model = loaded.backbone.to(device=device, dtype=self._dtype).to(memory_format=torch.channels_last)
        except RuntimeError as error:
            if not _is_memory(error):
                raise
            raise EncoderError(
                f"{loaded.spec.name}: {device} has no room for its weights. Close what else uses the card, or take "
                "bf16, a smaller encoder or device cpu."
            ) from error
        self._model: torch.nn.Module | None = model
        weights = sum(p.numel() * p.element_size() for p in model.parameters())
        room = free_memory(device) // 2 if max_memory is None else max_memory - weights
        self._batch = self._fitting(room)
        self._lock = threading.Lock()  # one pass at a time: they share the buffers of recorded passes
        self._passes: dict[Key, Callable[[Tensor], Tensor]] = {}
        self._uses: Counter[Key] = Counter()
        self._compiled: Callable[[Tensor, Output], Tensor] | None = None

    @property
    def block(self) -> int:
        """Pictures per pass."""
        return self._batch

    def _fitting(self, room: int) -> int:
        """Give the largest power of two of pictures whose pass is taken to fit into `room` bytes, at least 1."""
        spec = self.spec
        tokens = 1 + (spec.grid or 16) ** 2
        each = tokens * spec.dim * LIVE_TENSORS * self._dtype.itemsize + 3 * 4 * spec.input_size**2
        batch = LARGEST_BATCH.get(self.device.type, 32)
        while batch > 1 and batch * each > room:
            batch //= 2
        return batch

    def stream(self, blocks: Iterable[Pictures], output: Output) -> Iterator[Float32]:
        """Compute blocks of pictures (n, Y, X, 3) in their order; one block is computed while another is taken."""
        waiting: deque[list[Result]] = deque()
        try:
            for block in blocks:
                waiting.append(self._launch(block, output))
                if len(waiting) > 1:
                    yield _taken(waiting.popleft())
            while waiting:
                yield _taken(waiting.popleft())
        finally:
            close_reading(blocks)

    def _launch(self, block: Pictures, output: Output) -> list[Result]:
        """Start the passes of a block, smaller ones where memory does not suffice; results are on their way."""
        import torch

        while True:
            try:
                with torch.inference_mode(), self._current(), self._lock:
                    parts = (block[i : i + self._batch] for i in range(0, len(block), self._batch))
                    return [self._sent(self._pass(part, output)) for part in parts]
            except RuntimeError as error:
                self._halve(error)

    def _sent(self, result: Tensor) -> Result:
        """Send a result to the CPU: what was queued behind it does not delay it there."""
        import torch

        if self.device.type != "cuda":
            return result.float().cpu(), None
        host = torch.empty(result.shape, dtype=torch.float32, pin_memory=True)
        host.copy_(result.float(), non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return host, arrived

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Make the card the current one; in float32, leave no product to the card's shorter format (TF32)."""
        import torch

        if self.device.type != "cuda":
            yield
            return
        with torch.cuda.device(self.device):
            if self._dtype != torch.float32:
                yield
                return
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")
            try:
                with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
                    yield
            finally:
                torch.set_float32_matmul_precision(before)

    def _halve(self, error: RuntimeError) -> None:
        """Answer an error of memory with smaller batches; raise any other, and one that a single picture causes."""
        if not _is_memory(error):
            raise error
        if self._batch == 1:
            raise EncoderError(
                f"{self.spec.name}: {self.device} has too little memory for a single picture. Close what else uses "
                "the card, or take a smaller encoder or device cpu."
            ) from error
        self._batch //= 2
        self._compiled = None
        logger.warning("%s: out of memory; going on with %d pictures at a time", self.device, self._batch)
        self._give_back()

    def _pass(self, pictures: Pictures, output: Output) -> Tensor:
        """Compute up to `_batch` pictures, padded to that number or to `FEW`; gives only their rows."""
        import torch

        count = len(pictures)
        size = min(FEW, self._batch) if count <= FEW else self._batch
        host = torch.empty((size, *pictures.shape[1:]), dtype=torch.uint8, pin_memory=self.device.type == "cuda")
        host[:count] = torch.from_numpy(np.ascontiguousarray(pictures))
        host[count:] = 0
        key = (output, tuple(host.shape))
        self._uses[key] += 1
        if key not in self._passes:
            self._passes[key] = self._plain(output)
        elif self._uses[key] == RECORD_AFTER + 1 and self.device.type == "cuda":
            self._passes[key] = self._recorded(host, output)
        return self._passes[key](host)[:count]

    def _plain(self, output: Output) -> Callable[[Tensor], Tensor]:
        """Give a function from pictures to results that runs one operation after the other."""
        # Only from pinned memory may a copy go on after the call: MPS would read what is used again already.
        pinned = self.device.type == "cuda"
        return lambda host: self._forward(host.to(self.device, non_blocking=pinned), output)

    def _forward(self, pictures_BYXC: Tensor, output: Output) -> Tensor:
        """Prepare and compute, all on the device."""
        if self._model is None:
            raise RuntimeError("The encoder was closed.")
        x_BCYX = self._prepare(pictures_BYXC)
        if output == "pooled":
            return self._model.pooled(x_BCYX)  # type: ignore[operator, no-any-return]
        return reduce(self._model(x_BCYX), output)

    def _recorded(self, host: Tensor, output: Output) -> Callable[[Tensor], Tensor]:
        """Record one pass as a CUDA graph; gives a function from pinned pictures to results that replays it.

        Where a network does something that cannot be recorded, the plain pass remains.
        """
        import torch

        static = torch.empty_like(host, device=self.device)
        whole = len(host) == self._batch  # the size for which it was compiled
        forward = self._compiled if self._compiled is not None and whole else self._forward
        graph = torch.cuda.CUDAGraph()
        # A stream of this card: the default one of recordings belongs to the card that was first recorded on.
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        try:
            with torch.cuda.stream(side):
                for _ in range(2):
                    forward(static, output)
            torch.cuda.current_stream(self.device).wait_stream(side)
            with torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"):
                result = forward(static, output)
        except RuntimeError as error:
            if _is_memory(error):
                raise
            logger.info("The pass was not recorded: %s", error)
            return self._plain(output)

        def replay(pictures: Tensor) -> Tensor:
            static.copy_(pictures, non_blocking=True)
            graph.replay()
            return result.clone()

        return replay

    def consider_compiling(self, total: int, sample: Callable[[], Pictures], output: Output) -> bool:
        """Compile the pass if `total` pictures gain more time than the compiler takes.

        Parameters
        ----------
        total : int
            Pictures that are to come.
        sample : function
            Gives the first of them, (n, Y, X, 3) uint8, to measure with; asked only where compiling may be worth it.
        output : str
            What is computed of them.

        Returns
        -------
        bool
            Whether it was compiled; False without a word where there is no compiler.
        """
        import torch

        few = total < 20 * self._batch  # measuring would cost more than it brings
        if self.device.type != "cuda" or self._compiled is not None or few or not can_compile():
            return False
        pictures = sample()
        _taken(self._launch(pictures, output))
        started = time.perf_counter()
        _taken(self._launch(pictures, output))
        each = (time.perf_counter() - started) / len(pictures)
        if total * each * COMPILE_GAIN < COMPILE_SECONDS:
            return False
        try:
            compiled = torch.compile(self._forward, fullgraph=True, dynamic=False)
            shape = (self._batch, *pictures.shape[1:])
            with torch.inference_mode(), self._current(), self._lock:
                compiled(torch.zeros(shape, dtype=torch.uint8, device=self.device), output)
        except Exception as error:  # compilers fail in as many ways as there are machines; the plain pass remains
            logger.info("The pass was not compiled: %s", error)
            return False
        self._compiled = compiled
        self._passes.clear()
        self._uses.clear()
        return True

    def release(self) -> None:
        """Give back what a long job took; a few pictures on demand took little, and the next ones will want it."""
        if sum(self._uses.values()) > MANY:
            self._give_back()

    def _give_back(self) -> None:
        """Free what passes keep, so that whoever draws on the same card finds its memory again."""
        import torch

        self._passes.clear()
        self._uses.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        elif self.device.type == "mps":
            torch.mps.empty_cache()

    def close(self) -> None:
        """Give all memory back."""
        self._model = self._compiled = None
        self._give_back()


def _taken(results: list[Result]) -> Float32:
    """Wait for the results of a block, and for nothing that was queued after them."""
    for _, arrived in results:
        if arrived is not None:
            arrived.synchronize()
    return np.concatenate([host.numpy() for host, _ in results])


def _is_memory(error: RuntimeError) -> bool:
    """Whether a device ran out of memory; MPS and cuBLAS have no class of their own for it."""
    import torch

    words = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error) for word in words)


def can_compile() -> bool:
    """Tell whether this machine has what torch's compiler needs: a C compiler and Triton."""
    from importlib.util import find_spec

    return find_spec("triton") is not None and any(shutil.which(name) for name in ("cc", "gcc", "clang", "cl"))
