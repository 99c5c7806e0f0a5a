"""The next batch is made in the background while one is trained on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from vqlib.training.items import Items


class Ahead:
    """Batches of ``pictures``.

    One thread makes one batch in advance. Which pictures are in it is said by the caller, so what
    a step sees depends on no timing.
    """

    def __init__(self, pictures: Items):
        self._pictures = pictures
        self._thread: ThreadPoolExecutor | None = None
        self._begun: tuple[Tensor, Future[Tensor]] | None = None

    def take(self, indices: Tensor, following: Tensor | None = None) -> Tensor:
        """The batch of ``indices`` (n,); that of ``following`` is begun meanwhile.

        Raises what `batch` raises, when the batch is asked for that it was raised in.
        """
        begun, self._begun = self._begun, None
        if begun is not None and torch.equal(begun[0], indices):
            batch = begun[1].result()
        else:
            batch = self._pictures.batch(indices)
        if following is not None:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, "vqlib-batches")
            self._begun = following, self._thread.submit(self._pictures.batch, following)
        return batch
