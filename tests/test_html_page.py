"""A report is one valid file that carries its pictures, tables and sounds, and shows text as text."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from clip_plots import clip_figure
from errors import UserError
from html_page import Page

HOSTILE = "<script>alert('x')</script> & \"quoted\""


class Balance(HTMLParser):
    """Collects tags and fails on one that is closed without having been opened."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_is_whole_and_shows_text_as_text(tmp_path: Path) -> None:
    waveform = np.sin(np.arange(16_000) / 20).astype(np.float32) / 2
    page = Page(HOSTILE, HOSTILE)
    page.section(HOSTILE)
    page.text(HOSTILE)
    page.preformatted(HOSTILE)
    page.figure(clip_figure(waveform, np.zeros((60, 513))), HOSTILE, HOSTILE)
    page.table(
        pd.DataFrame(
            {
                HOSTILE: [HOSTILE],
                "clips": [12_345],
                "eer": [0.123456],
                "ok": [True],
                "n": [np.nan],
                "p": ["26.40 %"],
                "v": ["3.11.7"],
            }
        )
    )
    for tags in ('<th class="number">p</th><th>v</th>', '<td class="number">26.40 %</td><td>3.11.7</td>'):
        assert tags in page.parts[-1]
    with page.side_by_side(), page.together():
        page.audio(waveform, HOSTILE)
    page.link(HOSTILE, 'runs/a "b"/report.html')
    text = page.write(tmp_path / "new" / "report.html").read_text(encoding="utf-8")

    parsed = Balance()
    parsed.feed(text)
    assert parsed.open == []
    assert "<script" not in text
    sources = [attributes["src"] for _, attributes in parsed.seen if attributes.get("src")]
    assert all(source.startswith("data:") for source in sources)  # nothing is loaded from elsewhere
    assert not re.search(r'src="(?!data:)|href="(?!#)(?!runs/a%20%22b%22/report.html")', text)
    heard, rate = soundfile.read(io.BytesIO(base64.b64decode(sources[-1].split(",")[1])))
    assert rate == 16_000
    np.testing.assert_allclose(heard, waveform, atol=2**-15)
    assert base64.b64decode(sources[0].split(",")[1]).startswith(b"\x89PNG")
    for cell in ("12,345", "0.1235", "yes", "26.40 %"):
        assert f">{cell}</td>" in text
    links = [attributes["href"] for tag, attributes in parsed.seen if tag == "a"]
    assert [f'id="{link[1:]}"' in text for link in links] == [True, False]  # a section, and the file beside the page


def test_unwritable_report_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    with pytest.raises(UserError, match=r"report\.html: the report cannot be written"):
        Page("x").write(tmp_path / "file" / "report.html")


def test_numbers_stand_at_the_right_with_the_dash_that_stands_for_one():
    page = Page("A page", "about it")
    page.table(pd.DataFrame({"rho": ["+0.01", "-0.15", "-"], "clear": ["yes", "-", "-"]}))
    cells = '<td class="number">+0.01</td><td>yes</td>', '<td class="number">-0.15</td><td>-</td>'
    for row in (*cells, '<td class="number">-</td><td>-</td>'):
        assert f"<tr>{row}</tr>" in page.parts[-1]
