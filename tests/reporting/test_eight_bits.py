"""What the report says of attacks that succeed less often in 8 bits."""

import dataclasses

import pytest

from support.reports import make_records, rows_of, section_of

ATTACKS = (("clean", "clean", None, None, 0, 1), ("cw", "C&W", "l2", None, 9, 1), ("fab", "FAB", "l2", 0.5, 9, 1))


def records_of(*still):
    """Clean, C&W and FAB, which reach 160 and 260 of 360, and in 8 bits so many."""
    records = make_records("a", (350, 200, 100), ATTACKS)
    return [dataclasses.replace(record, reached_8bit=n) for record, n in zip(records, (10, *still), strict=True)]


@pytest.mark.parametrize("still", [(160, 260), (157, 257), (None, None)])
def test_nothing_is_said_within_a_point_or_where_it_was_not_tried(still):
    assert section_of(records_of(*still), "eightbits") is None


def test_both_are_shown_where_they_differ():
    section = section_of(records_of(72, 257), "eightbits")
    assert rows_of(section, "run", "attack", "reached", "reached_8bit") == [("a", "cw", 44.4444, 20.0)]
    (warning,) = section.warnings
    assert "C&W succeeds on 44.4% of those of a, in 8 bits on 20.0%." in warning
    (warning,) = section_of(records_of(72, 130), "eightbits").warnings
    assert "FAB succeeds on 72.2% of those of a, in 8 bits on 36.1%; 1 other in the table." in warning


def test_repeats_are_averaged_and_all_must_have_been_tried():
    records = make_records("a", (350, 200), ATTACKS[:2], repeats=2)
    tried = [dataclasses.replace(r, reached_8bit=r.reached // 2) for r in records]
    (row,) = rows_of(section_of(tried, "eightbits"), "reached", "reached_8bit")
    assert row == pytest.approx((100 * 159 / 360, 100 * 79.5 / 360), abs=1e-3)
    assert section_of([*tried[:-1], records[-1]], "eightbits") is None
