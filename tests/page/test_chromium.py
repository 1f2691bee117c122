"""The page in a real browser: it opens without an error, a click plays, a search filters, and no name does harm."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from mer_ray.page.composing import make_page
from mer_ray.page.settings import PageSettings
from tests.support.tagged import MOODS, tagged_catalogue

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking")
SOFTWARE_GL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
EVIL = "</script><img src=x onerror=alert(1)> & 'quotes' \"too\" – ü.wav"
PLAIN = "b/plain song #1 100%.wav"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[*FLAGS, *SOFTWARE_GL, "--autoplay-policy=no-user-gesture-required"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Music, and a page of it beside; one name tries to break out of the page."""
    folder = tmp_path_factory.mktemp("page")
    songs = [EVIL.replace("/", "_"), PLAIN, *(f"a/{at:02d}.wav" for at in range(28))]
    tags = tagged_catalogue(folder, songs, failed=["<b>broken</b>.wav"])
    second = np.sin(np.arange(24_000 * 3) * 0.05) * 0.3
    for name in songs[:3]:
        (folder / "music" / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / "music" / name, second, 24_000)
    make_page(PageSettings.model_construct(tags=str(tags), output=str(folder / "page.html")))
    return folder


class Opened:
    """A page in a tab of its own, and all that it complained of."""

    def __init__(self, browser: Any, file: Path, width: int = 1400) -> None:
        self.complaints: list[str] = []
        self.tab = browser.new_context(viewport={"width": width, "height": 900}).new_page()
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("console", lambda said: self.complaints.append(said.text) if said.type == "error" else None)
        self.tab.on("dialog", lambda dialog: (self.complaints.append("a dialog"), dialog.dismiss()))
        self.tab.goto(file.as_uri())
        self.tab.wait_for_selector("#list .song")

    def plays(self) -> None:
        """Wait until the player plays."""
        self.tab.wait_for_function("document.getElementById('audio').currentTime > 0", timeout=20_000)


@pytest.fixture
def page(browser: Any, folder: Path) -> Iterator[Opened]:
    opened = Opened(browser, folder / "page.html")
    yield opened
    opened.tab.close()


def test_it_opens_without_an_error_and_its_map_has_every_song(page: Opened) -> None:
    page.tab.wait_for_selector("#map canvas")
    drawn = page.tab.evaluate("document.getElementById('map').data.slice(0, 2).map((trace) => trace.x.length)")
    assert drawn == [0, 30]
    assert page.tab.locator("#failed").inner_text().count("is silent") == 1
    assert "Untrained" in page.tab.inner_text("#untrained")
    assert not page.complaints


def test_a_click_on_a_song_plays_it(page: Opened) -> None:
    page.tab.fill("#search", "plain song")
    page.tab.click("#list .song")
    page.plays()
    assert PLAIN in page.tab.inner_text("#nowtitle")
    assert page.tab.locator("#strip button").count() == 2


def test_a_click_on_the_map_plays_the_song_there(page: Opened) -> None:
    page.tab.wait_for_selector("#map .nsewdrag")
    page.tab.fill("#search", "plain song")
    place = page.tab.evaluate(
        """() => {
            const map = document.getElementById('map'), full = map._fullLayout, { x: [x], y: [y] } = map.data[1];
            const box = map.getBoundingClientRect(), { l, t } = full._size;
            return [box.left + l + full.xaxis.d2p(x), box.top + t + full.yaxis.d2p(y)];
        }"""
    )
    page.tab.mouse.move(*place)
    page.tab.wait_for_selector("#tip", state="visible")
    page.tab.mouse.click(*place)
    page.plays()
    assert PLAIN in page.tab.inner_text("#nowtitle")


def test_a_search_and_a_word_filter_the_songs(page: Opened) -> None:
    page.tab.fill("#search", "a/1")
    assert page.tab.inner_text("#found") == "10 songs"
    assert page.tab.locator("#list .song").count() == 10
    page.tab.fill("#search", "")
    word = page.tab.locator(".chip").first
    word.click()
    shown = page.tab.locator("#list .song small").all_inner_texts()
    assert 0 < len(shown) < 30
    assert all(word.inner_text() in tags for tags in shown)


def test_each_word_has_the_songs_it_suits_best_and_worst(page: Opened) -> None:
    assert page.tab.locator("#wordlist details").count() == len(MOODS)
    page.tab.locator("#wordlist summary").first.click()
    page.tab.locator("#wordlist .song").nth(19).wait_for()
    assert page.tab.locator("#wordlist .song").count() == 20


def test_no_name_becomes_part_of_the_page(page: Opened) -> None:
    page.tab.fill("#search", "onerror")
    assert page.tab.locator("#list .song").inner_text().startswith(EVIL.replace("/", "_"))
    page.tab.locator("#list .song").click()
    page.plays()
    assert not page.tab.locator("img[src=x]").count()
    assert not page.complaints


def test_a_song_that_is_gone_says_so(page: Opened) -> None:
    page.tab.fill("#search", "a/27")
    page.tab.click("#list .song")
    page.tab.wait_for_selector("#trouble", state="visible")
    assert "a/27.wav" in page.tab.inner_text("#trouble")


def test_page_and_music_may_move_together(browser: Any, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "music", tmp_path / "music")
    shutil.copy(folder / "page.html", tmp_path)
    shutil.move(folder / "music", folder / "away")
    try:
        moved = Opened(browser, tmp_path / "page.html")
        moved.tab.fill("#search", "plain song")
        moved.tab.click("#list .song")
        moved.plays()
        moved.tab.close()
    finally:
        shutil.move(folder / "away", folder / "music")


def test_nothing_is_wider_than_a_phone(browser: Any, folder: Path) -> None:
    phone = Opened(browser, folder / "page.html", width=420)
    assert phone.tab.evaluate("document.documentElement.scrollWidth") <= 420
    phone.tab.close()
