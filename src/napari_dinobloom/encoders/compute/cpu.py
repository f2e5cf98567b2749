"""The CPU: each core takes a picture of its own, so that a picture's numbers never depend on its company."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from napari_dinobloom.encoders.compute.base import Float32, Output, Pictures, Preparation, reduce
from napari_dinobloom.encoders.compute.reading import close_reading

if TYPE_CHECKING:
    from torch import Tensor

    from napari_dinobloom.encoders.build import Loaded
    from napari_dinobloom.encoders.device import Precision
    from napari_dinobloom.encoders.networks.backbone import Backbone

MOST_WORKERS = 16
"""More Python threads than this would wait for each other; each then takes several cores."""


class CpuCompute:
    """A network on a CPU.

    Parameters
    ----------
    loaded : Loaded
        The network; its weights are taken over.
    precision : {"float32", "bf16"}
        Number type of weights and products.
    threads : int, optional
        Cores to use; None takes what torch is set to.
    """

    def __init__(self, loaded: Loaded, precision: Precision, threads: int | None = None) -> None:
        import torch

        from napari_dinobloom.encoders.networks.packed import PackedTransformer
        from napari_dinobloom.encoders.networks.vit import VisionTransformer

        self.threads = threads
        self.block = 16
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self._network: PackedTransformer | _OnePicture | None
        if isinstance(loaded.backbone, VisionTransformer):
            self._network, wanted = PackedTransformer(loaded.backbone, dtype), torch.float32
        else:
            self._network, wanted = _OnePicture(loaded.backbone.to(dtype)), dtype
        self._prepare = Preparation(loaded.spec, torch.device("cpu"), wanted)

    def stream(self, blocks: Iterable[Pictures], output: Output) -> Iterator[Float32]:
        """Compute blocks of pictures (n, Y, X, 3) in their order, a picture per worker."""
        with _workers(self.threads) as (pool, count):
            waiting: deque[list[Future[Float32]]] = deque()
            try:
                for block in blocks:
                    waiting.append([pool.submit(self._one, picture, output) for picture in block])
                    # One block ahead keeps all workers busy while results are taken.
                    while len(waiting) > 1 and sum(map(len, waiting)) - len(waiting[0]) >= count:
                        yield _stacked(waiting.popleft())
                while waiting:
                    yield _stacked(waiting.popleft())
            finally:
                close_reading(blocks)
                for futures in waiting:
                    for future in futures:
                        future.cancel()

    def _one(self, picture: Pictures, output: Output) -> Float32:
        """Compute one picture."""
        import torch

        if self._network is None:
            raise RuntimeError("The encoder was closed.")
        with torch.inference_mode():
            x_CYX = self._prepare(torch.from_numpy(np.ascontiguousarray(picture))[None])[0]
            if output == "pooled":
                return self._network.pooled(x_CYX).numpy()
            return reduce(self._network.tokens(x_CYX)[None], output)[0].numpy()

    def release(self) -> None:
        """Nothing is kept between jobs."""

    def close(self) -> None:
        """Give the network's memory back."""
        self._network = None


class _OnePicture:
    """Any network, given one picture at a time."""

    def __init__(self, model: Backbone) -> None:
        self.model = model

    def tokens(self, x_CYX: Tensor) -> Tensor:
        """Compute all tokens, (1 + patches, D) float32."""
        out: Tensor = self.model(x_CYX[None])
        return out[0].float()

    def pooled(self, x_CYX: Tensor) -> Tensor:
        """Compute the embedding, (D,) float32."""
        return self.model.pooled(x_CYX[None])[0].float()


def _stacked(futures: list[Future[Float32]]) -> Float32:
    return np.stack([future.result() for future in futures])


class _workers:
    """Threads that share the cores; gives them and their number, and leaves torch's own setting as it was."""

    def __init__(self, threads: int | None) -> None:
        import torch

        self._setting = torch.get_num_threads()
        cores = max(1, threads or self._setting)
        each = -(-cores // MOST_WORKERS)
        self._count = cores // each
        started = threading.Barrier(self._count + 1)

        def start() -> None:
            # A thread takes the last setting of any thread over when it first asks, so it has to ask before it is told.
            torch.get_num_threads()
            torch.set_num_threads(each)
            started.wait()

        self._pool = ThreadPoolExecutor(self._count, "embed", initializer=start)
        for _ in range(self._count):
            self._pool.submit(int)
        started.wait()
        torch.set_num_threads(self._setting)  # torch hands the last setting on to threads that are yet to come

    def __enter__(self) -> tuple[ThreadPoolExecutor, int]:
        return self._pool, self._count

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
