"""Plots: points that say their values where they are, whatever the names are."""

import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from l2p_tf.reporting.plot import Curve, Plot, inline, plot_of
from support.pages import texts_in

CIRCLE = re.compile(r'<circle cx="([\d.]+)" cy="([\d.]+)" r="[\d.]+" role="img"><title>(.*?)</title></circle>')


def test_the_points_of_a_plot_say_their_values_where_they_are():
    x, y = np.array([0.0, 1.0, 2.0]), np.array([10.0, 50.0, 90.0])
    curve = Curve("<b>pgd</b>", x, y, low=y - 2, high=y + 2, texts=("a", "b", "c"))
    plot = plot_of("p", "t", [curve], ("L2 radius", "accuracy, %"), percent=True)
    assert [text for _, _, text in CIRCLE.findall(plot.svg)] == [
        f"&lt;b&gt;pgd&lt;/b&gt;: accuracy {v}% ({v - 2}\N{EN DASH}{v + 2}) at L2 radius {r}, {text}"
        for v, r, text in ((10, 0, "a"), (50, 1, "b"), (90, 2, "c"))
    ]
    inside = inline(plot)
    assert 'role="group"' in inside
    assert inside.count("<circle") == 3
    assert inside.index('aria-hidden="true"') < inside.index('class="marks"')


def test_marks_lie_on_the_points_that_were_drawn():
    plot = plot_of("p", "t", [Curve("a", np.array([0.0, 1.0, 2.0]), np.array([10.0, 50.0, 20.0]))], ("x", "y"))
    points = re.findall(r'<use xlink:href="#\w+" x="([\d.]+)" y="([\d.]+)" style="fill: #0072b2', plot.svg)
    marks = [(float(a), float(b)) for a, b, _ in CIRCLE.findall(plot.svg)]
    np.testing.assert_allclose(marks, np.array(points[:3], float), atol=0.1)


def test_marks_outside_of_the_axes_are_left_out():
    curve = Curve("a", np.array([0.0, 1.0, 5.0]), np.array([1.0, 2.0, np.nan]))
    assert len(CIRCLE.findall(plot_of("p", "t", [curve], ("x", "y"), right=2.0).svg)) == 2


def test_plots_hold_names_of_any_kind():
    names = ["_hidden", "$a^", "日本語 שלום", '<&">', "x" * 300, "\x00"]
    plot = plot_of("p", "t", [Curve(name, np.arange(2), np.arange(2)) for name in names], ("x", "y"))
    assert {"_hidden", "$a^", "日本語 שלום", '<&">'} <= set(texts_in(plot))
    ET.fromstring(inline(Plot("p", "<title> & more", plot.svg)))


@pytest.mark.parametrize("integers", [True, False])
def test_an_axis_of_whole_numbers_has_no_tick_between_them(integers):
    curve = Curve("a", np.arange(1.0, 5.0), np.arange(4.0) / 7)
    made = plot_of("p", "p", [curve], ("epoch", "loss"), integers=integers)
    assert ("1.5" in texts_in(made)) != integers


def test_values_that_lie_far_apart_are_on_a_logarithmic_axis():
    for ticks, labels in (([1.0, 2.0, 4.0], ["1", "2", "4"]), ([1.0, 10.0, 100.0], ["1", "10", "100"])):
        plot = plot_of("p", "t", [Curve("c", np.array(ticks), np.ones(3))], ("x", "y"), ticks=ticks)
        places = [float(x) for x, _, _ in CIRCLE.findall(plot.svg)]
        assert texts_in(plot)[:3] == labels
        even = np.diff(places)
        assert (abs(even[0] - even[1]) < 1) == (ticks[2] == 100)
