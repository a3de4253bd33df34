"""Batches concurrent requests, so that they share a pass of the model."""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

Answer = dict[str, np.ndarray]
Call = Callable[[np.ndarray], Answer]


class QueueFullError(Exception):
    """The queue of waiting images is full."""


class Batcher:
    """Processes requests in batches, one batch at a time, in order of arrival.

    While a batch is processed, requests accumulate for the next: a single request hardly waits, and under load passes
    are full.

    Args:
      call: maps images (count, ...) to arrays (count, ...) by name; called in a thread, for one batch at a time.
      most: maximum images per batch; a larger request gets its own batch.
      wait: seconds that the first request of a batch waits for others.
      queue: maximum number of waiting images.
      told: called with the number of images of each batch.
    """

    def __init__(self, call: Call, most: int, wait: float, queue: int, told: Callable[[int], None]) -> None:
        self.call, self.most, self.wait, self.queue, self.told = call, most, wait, queue, told
        self.waiting: collections.deque[tuple[np.ndarray, asyncio.Future[Answer]]] = collections.deque()
        self.arrived = asyncio.Event()
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="model")
        self.task: asyncio.Task[None] | None = None

    @property
    def images(self) -> int:
        """Number of waiting images."""
        return sum(len(images) for images, _ in self.waiting)

    async def ask(self, images: np.ndarray) -> Answer:
        """Returns the outputs for the images of one request.

        Raises:
          QueueFullError: too many images are waiting.
        """
        if self.waiting and self.images + len(images) > self.queue:
            raise QueueFullError
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.waiting.append((images, future))
        self.arrived.set()
        return await future

    def open(self) -> None:
        """Starts processing."""
        self.task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Finishes waiting requests, and stops."""
        while self.waiting:
            await asyncio.sleep(0.01)
        if self.task is not None:
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task
        self.pool.shutdown(wait=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self.arrived.wait()
            if self.wait and self.images < self.most:
                await asyncio.sleep(self.wait)
            batch = self._taken()
            if not batch:
                continue
            images = np.concatenate([part for part, _ in batch]) if len(batch) > 1 else batch[0][0]
            self.told(len(images))
            try:
                answer = await loop.run_in_executor(self.pool, self.call, images)
            except Exception as error:  # Errors of the model fail the requests, not the server.
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            start = 0
            for part, future in batch:
                end = start + len(part)
                if not future.done():
                    future.set_result({name: values[start:end] for name, values in answer.items()})
                start = end

    def _taken(self) -> list[tuple[np.ndarray, asyncio.Future[Answer]]]:
        """Takes the requests of the next batch, skipping canceled ones."""
        batch: list[tuple[np.ndarray, asyncio.Future[Answer]]] = []
        count = 0
        while self.waiting:
            images, future = self.waiting[0]
            if batch and count + len(images) > self.most:
                break
            self.waiting.popleft()
            if not future.done():
                batch.append((images, future))
                count += len(images)
        if not self.waiting:
            self.arrived.clear()
        return batch
