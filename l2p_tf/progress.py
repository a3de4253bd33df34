"""Progress bars with the remaining time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

from rich import console, progress, table, text

_LOG_SECONDS = 60.0
"""If the output is a log, not a terminal, the bar is printed as a line at this interval."""

_WIDE = 120


class _Cut(progress.TextColumn):
    """Text that is truncated if the line is too long, so that the figures next to it stay complete."""

    def __init__(self, text_format: str) -> None:
        super().__init__(text_format, table_column=table.Column(no_wrap=False))

    def render(self, task: progress.Task) -> text.Text:
        """Returns the text, which may be truncated but not wrapped."""
        rendered = super().render(task)
        rendered.no_wrap, rendered.overflow = True, "ellipsis"
        return rendered


@contextlib.contextmanager
def bar(description: str, total: int, unit: str, done: int = 0) -> Iterator[Callable[..., None]]:
    """Shows a progress bar on standard error and yields the function that advances it.

    Args:
      description: the work being done.
      total: number of units.
      unit: their name, in the plural.
      done: number of units already done (in a resumed run).

    Yields:
      `advance(n, **facts)`: advances the bar by `n`; the facts are shown after it, such as `loss=0.31`.
    """
    # Jupyter also gets lines: its displays would remain, and need widgets.
    screen = console.Console(stderr=True, force_jupyter=False)
    columns = (
        _Cut("{task.description}"),
        progress.BarColumn(bar_width=40 if screen.width >= _WIDE else 8),
        progress.TextColumn("{task.completed:.0f}/{task.total:.0f} " + unit),
        progress.TimeElapsedColumn(table_column=table.Column(no_wrap=True)),
        progress.TextColumn("left"),
        progress.TimeRemainingColumn(elapsed_when_finished=False, table_column=table.Column(no_wrap=True)),
        _Cut("{task.fields[facts]}"),
    )
    printed_at = time.monotonic()
    with progress.Progress(*columns, console=screen, refresh_per_second=4, speed_estimate_period=120) as display:
        task = display.add_task(description, total=total, completed=done, facts="")

        def advance(n: int = 1, **facts: float | str) -> None:
            told_facts = " ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{k}={v}" for k, v in facts.items())
            nonlocal printed_at
            display.update(task, advance=n)
            if told_facts:
                display.update(task, facts=told_facts)
            if not screen.is_terminal and time.monotonic() - printed_at > _LOG_SECONDS:
                printed_at = time.monotonic()
                screen.print(display)

        yield advance
