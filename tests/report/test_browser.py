"""The page in a real browser: no errors, the slider and themes by keyboard, a phone's width."""

from __future__ import annotations

import base64
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from helpers.cli import FinishedRun

from drc.data.bundled import bundled_pairs
from drc.evaluation.benchmark import Bicubic
from drc.opening import open_saved
from drc.report.compare import compare
from drc.report.gallery import photograph
from drc.report.html.page import Recipe, comparison_page, page
from drc.report.run_files import read_report, read_run
from drc.store.run_folder import RunFolder

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

_CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.skipif(
        not (_CHROMIUM and _DRIVER), reason="there is no chromium with its chromedriver"
    ),
    pytest.mark.skipif(sys.platform == "win32", reason="paths as on Linux and macOS"),
]

_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def pages(finished_run: FinishedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`report.html` and `compare.html` of the finished run."""
    folder = RunFolder.open(finished_run.run)
    run = read_run(folder, read_report(folder))
    networks = {"dense": Bicubic(4), "recovered": open_saved("drn_tiny", folder.finetuned_path)}
    photos = photograph(networks, bundled_pairs("test")[:1], device="cpu")
    place = tmp_path_factory.mktemp("pages")
    (place / "report.html").write_text(page(run, photos, Recipe("a: 1", ["drc search " * 20])))
    other = replace(run, name="other")
    found = compare([run, other], ["runs/a", "runs/b"])
    long = "a_long_name_of_a_run_" * 3
    shared = photograph(
        {**networks, long: Bicubic(4)}, bundled_pairs("test")[:1], compared=["recovered", long]
    )
    (place / "compare.html").write_text(comparison_page(found, shared))
    return place


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    with tempfile.TemporaryDirectory(prefix="chromium", ignore_cleanup_errors=True) as profile:
        options = webdriver.ChromeOptions()
        options.binary_location = _CHROMIUM
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        service = webdriver.ChromeService(executable_path=_DRIVER)
        driver = webdriver.Chrome(options=options, service=service)
        try:
            driver.set_page_load_timeout(60)
            yield driver
        finally:
            driver.quit()


def visit(browser: webdriver.Chrome, path: Path, width: int = 1280, height: int = 900) -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(path.as_uri())


def scheme(browser: webdriver.Chrome, name: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": name}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def ground(browser: webdriver.Chrome) -> str:
    return browser.execute_script("return getComputedStyle(document.body).backgroundColor")


def clip(browser: webdriver.Chrome) -> str:
    script = "return getComputedStyle(document.querySelector('.form.left')).clipPath"
    return browser.execute_script(script)


@pytest.mark.parametrize("name", ["report.html", "compare.html"])
def test_the_page_loads_without_errors_or_requests(browser, pages, name):
    browser.get_log("browser")
    visit(browser, pages / name)
    assert browser.find_element(By.TAG_NAME, "h1").text
    assert browser.get_log("browser") == []
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map(e => e.name)"
    )
    assert [address for address in loaded if not address.startswith("data:")] == []
    broken = browser.execute_script(
        "return [...document.images].filter(i => !i.complete || !i.naturalWidth).length"
    )
    assert broken == 0


@pytest.mark.parametrize("name", ["report.html", "compare.html"])
def test_the_slider_moves_by_keyboard(browser, pages, name):
    visit(browser, pages / name)
    slider = browser.find_element(By.CSS_SELECTOR, ".compare input")
    assert "50%" in clip(browser)
    slider.send_keys(Keys.ARROW_RIGHT * 10)
    assert slider.get_attribute("value") == "60"
    assert "40%" in clip(browser)
    slider.send_keys(Keys.HOME)
    assert "100%" in clip(browser)
    divider = browser.find_element(By.CSS_SELECTOR, ".divider")
    assert divider.location["x"] == pytest.approx(slider.location["x"], abs=3)


def test_the_sides_of_the_slider_can_be_chosen(browser, pages):
    visit(browser, pages / "report.html")
    left = browser.find_element(By.CSS_SELECTOR, "select[data-side=left]")
    Select(left).select_by_visible_text("HR")
    shown = browser.find_element(By.CSS_SELECTOR, ".form.left")
    assert shown.get_attribute("alt").endswith("HR") and shown.is_displayed()
    assert browser.find_element(By.CSS_SELECTOR, ".tag.left").text == "HR"
    assert len(browser.find_elements(By.CSS_SELECTOR, ".form.right")) == 1


def test_themes_follow_the_system_and_the_button(browser, pages):
    visit(browser, pages / "report.html")
    button = browser.find_element(By.ID, "theme")
    found = {}
    for name in ("light", "dark"):
        scheme(browser, name)
        found[name] = ground(browser)
    assert found["light"] != found["dark"]
    for expected in ("light", "dark"):
        button.send_keys(Keys.ENTER)
        assert button.text == f"Theme: {expected}"
        assert ground(browser) == found[expected]
    button.send_keys(Keys.ENTER)
    assert button.text == "Theme: system"
    scheme(browser, "light")
    assert ground(browser) == found["light"]


@pytest.mark.parametrize("name", ["report.html", "compare.html"])
def test_a_phone_needs_no_sideways_scrolling(browser, pages, name):
    visit(browser, pages / name, 360, 740)
    for details in browser.find_elements(By.TAG_NAME, "details"):
        browser.execute_script("arguments[0].open = true", details)
    page_width = browser.execute_script("return document.documentElement.scrollWidth")
    assert page_width <= 360


def style(browser: webdriver.Chrome, selector: str, name: str) -> str:
    script = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    return browser.execute_script(script, selector, name)


COLOURS = (
    ("body", "color"), ("h2", "color"), (".facts dt", "color"), (".warnings", "backgroundColor"),
    (".chart text", "fill"), (".chart .grid", "stroke"), ("section", "backgroundColor"),
    (".kept", "fill"), ("html", "colorScheme"),
)  # fmt: skip


@pytest.mark.parametrize("name", ["report.html", "compare.html"])
@pytest.mark.parametrize("chosen", ["button", "system"])
def test_a_dark_page_prints_as_a_light_one(browser, pages, name, chosen):
    visit(browser, pages / name)
    browser.execute_script("localStorage.clear()")

    def emulate(media: str, theme: str) -> dict[tuple[str, str], str]:
        features = [{"name": "prefers-color-scheme", "value": theme}]
        parameters = {"media": media, "features": features}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", parameters)
        return {place: style(browser, *place) for place in COLOURS}

    try:
        light = emulate("screen", "light")
        if chosen == "button":
            browser.execute_script("document.documentElement.dataset.theme = 'dark'")
            dark, printed = emulate("screen", "light"), emulate("print", "light")
        else:
            browser.execute_script("delete document.documentElement.dataset.theme")
            dark, printed = emulate("screen", "dark"), emulate("print", "dark")
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    assert all(dark[place] != light[place] for place in COLOURS)
    assert printed == light


def test_what_paper_cannot_show_is_laid_open_on_it(browser, pages):
    visit(browser, pages / "report.html")
    closed = "return document.querySelectorAll('details:not([open])').length"
    folded = browser.execute_script(closed)
    assert folded > 0
    script = "addEventListener('beforeprint', () => { window.foldedOnPaper = %s });"
    browser.execute_script(script % closed.removeprefix("return "))
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"paperWidth": 8.27, "paperHeight": 11.69})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF-")
    assert browser.execute_script("return window.foldedOnPaper") == 0
    assert browser.execute_script(closed) == folded  # and closed again
    try:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
        for hidden in ("#theme", "nav", ".choices", ".divider", ".compare input"):
            assert style(browser, hidden, "display") == "none", hidden
        assert style(browser, ".scroll.tall", "maxHeight") == "none"
        left, right = (
            browser.find_element(By.CSS_SELECTOR, f".form.{side}").rect
            for side in ("left", "right")
        )
        assert left["x"] + left["width"] <= right["x"] and left["y"] == right["y"]
        assert style(browser, ".form.left", "clipPath") == "none"  # both whole, side by side
        for tag, image in ((".tag.left", left), (".tag.right", right)):
            below = browser.find_element(By.CSS_SELECTOR, tag).rect
            assert below["x"] == pytest.approx(image["x"], abs=1)
            assert below["y"] >= image["y"] + image["height"]
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


@pytest.mark.parametrize("name", ["report.html", "compare.html"])
def test_every_control_and_picture_has_a_name(browser, pages, name):
    visit(browser, pages / name)
    tree = browser.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {"button", "combobox", "slider", "link", "image", "region", "table", "img"}
    found = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in tree
        if not node.get("ignored") and node["role"]["value"] in roles
    ]
    assert {"combobox", "slider", "link"} <= {role for role, _ in found}
    assert [role for role, spoken in found if not spoken.strip()] == []
    choices = [spoken for role, spoken in found if role == "combobox"]
    assert len(set(choices)) == len(choices)


@pytest.mark.parametrize("name", ["report.html", "compare.html"])
def test_every_control_is_reached_by_tab(browser, pages, name):
    visit(browser, pages / name)
    reached = []
    for _ in range(60):
        browser.switch_to.active_element.send_keys(Keys.TAB)
        now = browser.switch_to.active_element
        reached.append(now.get_attribute("id") or now.tag_name)
    assert {"theme", "select", "input", "a", "summary"} <= set(reached)
