"""JSON lines on standard error, written by a separate thread so that a blocked log does not delay requests."""

from __future__ import annotations

import collections
import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

_MOST = 10_000


def _to_standard_error(line: bytes) -> None:
    # Not `sys.stderr`, whose blocked writes would keep the process from exiting.
    while line:
        line = line[os.write(2, line) :]


class Log:
    """Queues lines until they are written; if the queue is full, further ones are dropped and counted.

    Args:
      write: writes a line; may block forever.
      most: maximum number of queued lines.
    """

    def __init__(self, write: Callable[[bytes], None] = _to_standard_error, most: int = _MOST) -> None:
        self.write, self.most, self.dropped = write, most, 0
        self._waiting: collections.deque[bytes] = collections.deque()
        self._changed = threading.Condition()
        self._untold = 0
        self._thread: threading.Thread | None = None

    def __call__(self, event: str, **facts: Any) -> None:
        """Queues a line with the time, the event and facts."""
        with self._changed:
            if len(self._waiting) >= self.most:
                self.dropped += 1
                self._untold += 1
                return
            if self._untold:
                self._waiting.append(_line("log", dropped=self._untold))
                self._untold = 0
            self._waiting.append(_line(event, **facts))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def drain(self, seconds: float) -> bool:
        """Waits up to that many seconds for the queue to be written; returns whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting, seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting))
                line = self._waiting[0]
            try:
                self.write(line)
            except OSError:  # Standard error is closed: the line is lost, and counted in the metrics.
                self.dropped += 1
            with self._changed:
                self._waiting.popleft()
                self._changed.notify_all()


def _line(event: str, **facts: Any) -> bytes:
    now = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + "Z"
    return (json.dumps({"time": now, "event": event, **facts}) + "\n").encode()


log = Log()
"""The log of this process."""
