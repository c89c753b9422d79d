"""The web page in a real browser, on a telephone's screen: upload, read, record, download."""

import io
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pandas as pd
import pytest
from test_app import make_site, sound

from inference import CSV_COLUMNS, predict_audio

REPOSITORY = Path(__file__).resolve().parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE = 120_000  # ms; for a machine that does much else
NAME = "_my_ $a$ `b` [c](d) *e*.flac"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    return make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def temporary(tmp_path_factory) -> Path:
    """Where the server puts its temporary files."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def address(site, temporary) -> Iterator[str]:
    """A server of the page, as `make app` starts one."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "streamlit", "run", str(REPOSITORY / "app.py"), f"--server.port={port}"]
    with (site / "server.log").open("w", encoding="utf-8") as log:
        variables = os.environ | {"TMPDIR": str(temporary)}
        server = subprocess.Popen(command, cwd=site, stdout=log, stderr=log, env=variables)
    try:
        for _ in range(600):
            try:
                urlopen(f"http://localhost:{port}/_stcore/health", timeout=5)
                break
            except URLError:
                assert server.poll() is None, (site / "server.log").read_text(encoding="utf-8")
                time.sleep(0.1)
        yield f"http://localhost:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def browser() -> Iterator:
    from playwright.sync_api import sync_playwright

    microphone = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *microphone])


@pytest.fixture
def page(browser, address) -> Iterator:
    """The page on a telephone; it must ask nobody else for anything, and scroll in one direction only."""
    context = browser.new_context(viewport={"width": 390, "height": 844}, device_scale_factor=2)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    asked = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    page.get_by_test_id("stFileUploader").wait_for()
    page.get_by_role("combobox").click()  # what ships is offered first
    page.get_by_role("option", name="run spoof").click()
    # its card is there: the page has run anew, and an upload does not meet the old one
    page.get_by_text("Anna's_voices").wait_for(state="attached")
    yield page
    assert page.evaluate("document.querySelector('[data-testid=stMain]').scrollWidth") <= 390
    here = ("data:", "blob:", address, address.replace("http", "ws"))
    assert [url for url in asked if not url.startswith(here)] == []
    context.close()


def test_upload_on_a_telephone(page, site, temporary, tmp_path):
    (tmp_path / NAME).write_bytes(sound())
    page.locator("input[type=file]").set_input_files(tmp_path / NAME)
    page.get_by_text("Do not accuse anybody").wait_for()
    expected = predict_audio(site / "runs" / "spoof", site / "clip.flac")
    page.get_by_role("heading", name="Sounds synthetic").wait_for()
    page.get_by_text(f"Spoof probability {expected['spoof_probability']:.2f}").wait_for()
    page.get_by_text(f"{NAME}, 2.0 s").wait_for()  # as it is, not as Markdown would have it
    picture = page.get_by_role("img", name="spectrogram")
    page.wait_for_function("Array.from(document.images).some(image => image.naturalWidth > 500)")  # it has arrived
    assert picture.bounding_box()["width"] > 300
    assert list(temporary.rglob("clip*")) == []


def test_several_files_one_of_them_bad_and_the_table(page, site, tmp_path):
    (tmp_path / "bad.mp3").write_bytes(b"not audio")
    (tmp_path / "other.flac").write_bytes(sound(seed=1))
    files = [site / "clip.flac", tmp_path / "bad.mp3", tmp_path / "other.flac"]
    page.locator("input[type=file]").set_input_files(files)
    page.get_by_text("Do not accuse anybody").wait_for()
    page.get_by_role("alert").get_by_text("bad.mp3").wait_for()
    with page.expect_download() as download:
        page.get_by_role("button", name="Table as CSV").click()
    table = pd.read_csv(io.BytesIO(Path(download.value.path()).read_bytes()))
    assert tuple(table.columns) == CSV_COLUMNS and list(table["path"]) == [file.name for file in files]
    expected = [predict_audio(site / "runs" / "spoof", file)["logit"] for file in (files[0], files[2])]
    assert list(table["logit"].dropna()) == pytest.approx(expected, abs=1e-4)


def test_recording(page):
    page.get_by_role("button", name="Record").click()
    stop = page.get_by_role("button", name="Stop recording")
    stop.wait_for()
    page.wait_for_timeout(2500)  # the browser's own beeps
    stop.click()
    page.get_by_text("Do not accuse anybody").wait_for()
    page.get_by_test_id("stAudio").wait_for()


def test_a_file_of_another_kind_is_refused_by_name(page, tmp_path):
    (tmp_path / "notes.txt").write_text("not sound", encoding="utf-8")
    page.locator("input[type=file]").set_input_files(tmp_path / "notes.txt")
    page.get_by_text("files are not allowed").wait_for()
