"""How an accuracy stands in a table: never without its interval, its number of images and its spread."""

from __future__ import annotations

from l2p_tf.evaluation.records import Summary
from l2p_tf.reporting.sheets import Field
from l2p_tf.reporting.text import interval, percent


def accuracy(summary: Summary, *below: str) -> Field:
    """Mean and spread in percent; below them the 95% interval, images and repeats, and what else is said of it."""
    return Field(mean(summary), (within(summary), images(summary), *below))


def mean(summary: Summary) -> str:
    """Mean over repeats in percent, ± its standard deviation where there are several."""
    count = summary.first.count
    spread = "" if summary.spread is None else f" ± {percent(summary.spread, count)}"
    return percent(summary.accuracy, count) + spread


def within(summary: Summary) -> str:
    """The 95% interval in percent."""
    return interval(summary.low, summary.high, summary.first.count)


def images(summary: Summary) -> str:
    """`n = 359`, with the number of repeats where there are several."""
    repeats = len(summary.records)
    return f"n = {summary.first.count:,}" + (f", {repeats} repeats" if repeats > 1 else "")
