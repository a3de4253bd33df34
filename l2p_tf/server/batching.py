"""Requests that wait at the same time share one pass of the model."""

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
    """More images wait than may."""


class Batcher:
    """Answers requests in batches, one after another, in the order in which they came.

    While a batch is answered requests gather for the next: one alone hardly waits, and under load passes are full.

    Args:
      call: from images (count, ...) to arrays (count, ...) by name; called in a thread, by one batch at a time.
      most: images of a batch; a request of more has one for itself.
      wait: seconds that the first request of a batch waits for others.
      queue: images that may wait.
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
        """How many images wait."""
        return sum(len(images) for images, _ in self.waiting)

    async def ask(self, images: np.ndarray) -> Answer:
        """The answer to the images of one request.

        Raises:
          QueueFullError: too many images wait.
        """
        if self.waiting and self.images + len(images) > self.queue:
            raise QueueFullError
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.waiting.append((images, future))
        self.arrived.set()
        return await future

    def open(self) -> None:
        """Starts to answer."""
        self.task = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Answers what waits, and ends."""
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
            images = np.concatenate([one for one, _ in batch]) if len(batch) > 1 else batch[0][0]
            self.told(len(images))
            try:
                answer = await loop.run_in_executor(self.pool, self.call, images)
            except Exception as error:  # Whatever the model raises is each request's, and no end of the server.
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            start = 0
            for one, future in batch:
                end = start + len(one)
                if not future.done():
                    future.set_result({name: values[start:end] for name, values in answer.items()})
                start = end

    def _taken(self) -> list[tuple[np.ndarray, asyncio.Future[Answer]]]:
        """The requests of the next batch; those that were given up are left out."""
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
