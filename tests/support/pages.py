"""A page as tests look at it: its tags and text, its plots, and in a browser."""

import html.parser
import json
import pathlib
import re
import shutil
import xml.etree.ElementTree as ET

import pytest

from l2p_tf.reporting import page as page_module

EVIL = "<script>alert('$x^2$ & \"q\"')</script>"


class Outline(html.parser.HTMLParser):
    """Collects what the tests ask about."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.ids, self.headings, self.stack, self.text = [], [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for key, value in attributes if key == "id"]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_data(self, data):
        self.text.append(data)


def own_script():
    """The one script that a page has."""
    script = (pathlib.Path(page_module.__file__).parent / "templates" / "report.js").read_text("utf-8")
    return f"<script>{script}</script>"


def without_own_script(page):
    """A page without its script and without the data that the script reads, each of which is in it as it should be."""
    assert page.count(own_script()) == 1
    page = page.replace(own_script(), "")
    for block in re.findall(r'<script type="application/json">(.*?)</script>', page, re.DOTALL):
        assert not set(block) & set("<>&")
        json.loads(block)
    return re.sub(r'<script type="application/json">[^<>&]*</script>', "", page)


with_browser = pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")


def texts_in(plot):
    return [element.text for element in ET.fromstring(plot.svg).iter("{http://www.w3.org/2000/svg}text")]
