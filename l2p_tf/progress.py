"""Progress bars with the time left."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich import console, progress

_LOG_SECONDS = 60.0
"""Where the output is no terminal but a log, the bar is printed as a line this often."""


@contextlib.contextmanager
def bar(description: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[..., None]]:
    """Shows one bar on standard error and yields the function that moves it.

    Args:
      description: what is being done.
      total: how many units there are.
      unit: their name, in the plural.
      done: how many of them were done before (a resumed run).

    Yields:
      `advance(n, **facts)`: moves the bar by `n`; the facts are shown behind it, such as `loss=0.31`.
    """
    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TextColumn("{task.completed:.0f}/{task.total:.0f} " + unit),
        progress.TimeElapsedColumn(),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(elapsed_when_finished=False),
        progress.TextColumn("{task.fields[facts]}"),
    )
    screen = console.Console(stderr=True)
    told = time.monotonic()
    with progress.Progress(*columns, console=screen, refresh_per_second=4, speed_estimate_period=120) as shown:
        task = shown.add_task(description, total=total, completed=done, facts="")

        def advance(n: int = 1, **facts: float | str) -> None:
            text = " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in facts.items())
            nonlocal told
            shown.update(task, advance=n)
            if text:
                shown.update(task, facts=text)
            if not screen.is_terminal and time.monotonic() - told > _LOG_SECONDS:
                told = time.monotonic()
                screen.print(shown)

        yield advance
