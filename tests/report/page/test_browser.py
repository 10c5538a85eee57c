"""The page in a real browser: it loads without a word on the console, asks for nothing, and works by keyboard."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ablate.report.lookup import curves_of, judged_trials
from tests.conftest import missing
from tests.report.conftest import Analysed
from tests.report.hostile import MARKUP

try:
    import selenium  # noqa: F401 – a developer's tool, so that it may be missing
except ModuleNotFoundError:
    missing("selenium is not installed (pip install '.[dev]')", allow_module_level=True)
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, Keys
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

pytestmark = pytest.mark.browser
FLAGS = (
    "--headless",
    "--no-sandbox",  # a container's root has no user namespace to put the browser into
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1280,900",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        missing("Chromium or its driver is not installed (apt-get install chromium chromium-driver)")
    options = ChromeOptions()
    options.binary_location = binary
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    try:
        chrome = Chrome(options=options, service=Service(driver))
    except WebDriverException as error:
        missing(f"Chromium does not start: {str(error.msg).splitlines()[0]}")
    yield chrome
    chrome.quit()


def opened(browser: Chrome, page: Path, *, width: int = 1280, dark: bool = False) -> Chrome:
    """The page freshly loaded, with the logs of what came before thrown away."""
    for log in ("browser", "performance"):
        browser.get_log(log)
    scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get(page.as_uri())
    return browser


def requested(browser: Chrome) -> list[str]:
    """The addresses of everything that was requested since the page was opened."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [params["request"]["url"] for params in sent]


def find(browser: Chrome, selector: str) -> WebElement:
    return browser.find_element(By.CSS_SELECTOR, selector)


def column(browser: Chrome, table: str, place: int) -> list[str]:
    rows = browser.find_elements(By.CSS_SELECTOR, f"#{table} tbody tr:not([hidden])")
    return [row.find_elements(By.TAG_NAME, "td")[place].get_attribute("textContent") or "" for row in rows]


def unfold(browser: Chrome, table: str) -> None:
    """Open everything that a table is folded in."""
    script(browser, f"document.querySelectorAll('details:has(#{table})').forEach((one) => {{ one.open = true; }})")


def script(browser: Chrome, code: str, *arguments: Any) -> Any:
    return browser.execute_script(f"return {code}", *arguments)


def test_it_loads_without_a_word_and_without_a_request(browser: Chrome, page_of_two: Path) -> None:
    opened(browser, page_of_two)
    outside = [url for url in requested(browser) if not url.startswith("data:")]
    assert outside == [page_of_two.as_uri()]
    assert browser.get_log("browser") == []
    assert find(browser, "h1").text.startswith("Skip connections help")


def test_a_published_page_names_only_what_lies_beside_it(browser: Chrome) -> None:
    page = Path(__file__).resolve().parents[3] / "results" / "published" / "unet-ablation" / "report.html"
    opened(browser, page)
    links = [
        one.get_dom_attribute(name)
        for name in ("href", "src")
        for one in browser.find_elements(By.CSS_SELECTOR, f"[{name}]")
    ]
    assert len(links) > 100
    within = {link for link in links if link and not link.startswith("data:")}
    assert [link for link in within if not (link[0] == "#" and find(browser, f"[id='{link[1:]}']"))] == []
    script(browser, "document.querySelectorAll('script, style').forEach((one) => one.remove())")
    # A figure has its files as "figures/x.png, .svg"; the command names the study's file, where it was run.
    text = re.sub(r"(figures/\w+)\.(\w+), \.(\w+)", r"\1.\2 \1.\3", script(browser, "document.body.textContent"))
    name = re.compile(r"[\w./-]+\.(?:csv|html|json|md|npz|pdf|png|pt|svg|tex|txt|yaml|zip)\b")
    files = {*name.findall(text)} - {*name.findall(find(browser, "pre").text)}
    assert {"figures/consolidated.svg", "study.resolved.yaml"} <= files
    # What stands under the tables names the file in their folder.
    assert [file for file in files if not any((page.parent / part / file).exists() for part in ("", "tables"))] == []


def test_every_image_is_there(browser: Chrome, page_of_two: Path) -> None:
    opened(browser, page_of_two)
    sizes = script(browser, "Array.from(document.images, (image) => [image.complete, image.naturalWidth])")
    assert len(sizes) > 25
    assert all(complete and width > 0 for complete, width in sizes)
    # Image and truth are in the file once, and shown for every variant.
    used = script(
        browser,
        "Array.from(document.querySelectorAll('.tile use'), (one) => [one.getAttribute('href'), one.getBBox().width])",
    )
    assert len(used) == 2 * 3 * script(browser, "document.querySelectorAll('.store image').length / 2")
    assert all(width > 0 for _, width in used[: len(used) // 2])  # those of the variant whose tab is shown


def test_tables_sort_by_number_and_give_their_order_back(browser: Chrome, page_of_two: Path) -> None:
    opened(browser, page_of_two)
    table, place = "t-cells", 6
    unfold(browser, table)
    before = column(browser, table, place)
    head = find(browser, f"#{table} thead th:nth-child({place + 1})")
    button = head.find_element(By.TAG_NAME, "button")

    def values() -> list[float]:
        return [float(text.split()[0].replace("−", "-")) for text in column(browser, table, place)]

    script(browser, "arguments[0].focus()", button)
    button.send_keys(Keys.ENTER)
    assert head.get_attribute("aria-sort") == "descending"
    assert values() == sorted(values(), reverse=True)
    button.send_keys(Keys.SPACE)
    assert head.get_attribute("aria-sort") == "ascending"
    assert values() == sorted(values())
    assert values() != [float(text.split()[0]) for text in before]
    button.send_keys(Keys.ENTER)
    assert head.get_attribute("aria-sort") == "none"
    assert column(browser, table, place) == before


def test_tables_filter(browser: Chrome, page_of_two: Path) -> None:
    opened(browser, page_of_two)
    unfold(browser, "t-trials")
    box = find(browser, "#f-trials")
    script(browser, "arguments[0].focus()", box)
    box.send_keys("NOSKIP diverged")
    assert column(browser, "t-trials", 0) == ["noskip"]
    assert find(browser, "#f-trials ~ output").text == "1 of 18 rows"
    box.send_keys(Keys.CONTROL, "a")
    box.send_keys(Keys.DELETE)
    assert len(column(browser, "t-trials", 0)) == 18


def test_the_slider_moves_between_truth_and_prediction_by_keyboard(browser: Chrome, page_of_two: Path) -> None:
    opened(browser, page_of_two)
    slider = find(browser, "#panel-1 input[type=range]")
    over = find(browser, "#panel-1 .compare .over")

    def cut() -> str:
        return script(browser, "getComputedStyle(arguments[0]).clipPath", over)

    assert cut() == "inset(0px 0px 0px 50%)"
    script(browser, "arguments[0].focus()", slider)
    slider.send_keys(Keys.END)
    assert cut() == "inset(0px 0px 0px 100%)"
    assert slider.get_attribute("aria-valuetext") == "100 per cent truth"
    slider.send_keys(Keys.HOME)
    slider.send_keys(Keys.ARROW_RIGHT)
    assert cut() == "inset(0px 0px 0px 1%)"
    # The other variants' sliders follow: the same place is compared in all of them.
    assert find(browser, "#panel-2 input[type=range]").get_property("value") == "1"


def probe(browser: Chrome, place: int) -> WebElement:
    """The panel of curves at that place in the consolidated figure, in the middle of the window."""
    area = browser.find_elements(By.CSS_SELECTOR, "#fig-consolidated .probe")[place]
    script(browser, "arguments[0].scrollIntoView({block: 'center', inline: 'center'})", area)
    return area


def test_the_values_of_curves_stand_under_the_pointer(
    browser: Chrome, page_of_two: Path, two: Path, analysed: Analysed
) -> None:
    opened(browser, page_of_two)
    area = probe(browser, 2)
    shown = area.find_element(By.CSS_SELECTOR, ".values")
    assert not shown.is_displayed()
    ActionChains(browser, duration=0).move_to_element(area).perform()
    lines = shown.text.split("\n")
    epoch = int(lines[0].removeprefix("epoch "))
    curves = curves_of(analysed(two), judged_trials(analysed(two)))
    alive = curves[(curves["epoch"] == epoch) & (curves["status"] != "diverged")]
    for variant, mean in alive.groupby("variant")["val_mean_iou"].mean().items():
        assert lines[lines.index(str(variant)) + 1] == f"{100 * mean:.1f}"
    ActionChains(browser, duration=0).move_to_element(find(browser, "h2#claims")).perform()
    assert not shown.is_displayed()


def test_the_values_of_curves_can_be_read_by_keyboard_and_touch(browser: Chrome, page_of_two: Path) -> None:
    opened(browser, page_of_two)
    area = probe(browser, 0)
    script(browser, "arguments[0].focus()", area)
    area.send_keys(Keys.HOME)
    area.send_keys(Keys.ARROW_RIGHT)
    assert (
        area.get_attribute("role") == "slider"
        and area.get_attribute("aria-label") == "Training loss: values of the curves"
    )
    assert (area.get_attribute("aria-valuetext") or "").startswith("epoch 2: unet ")
    area.send_keys(Keys.ESCAPE)
    assert not area.find_element(By.CSS_SELECTOR, ".values").is_displayed()
    other = probe(browser, 1)
    box = script(browser, "JSON.stringify(arguments[0].getBoundingClientRect())", other)
    place = json.loads(box)
    point = {"x": place["x"] + 1, "y": place["y"] + place["height"] / 2}
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [point]})
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert other.find_element(By.CSS_SELECTOR, ".values").text.startswith("epoch 1\nunet")


def test_the_cut_follows_a_pressed_pointer_over_the_image(browser: Chrome, page_of_two: Path) -> None:
    opened(browser, page_of_two)
    picture = find(browser, "#panel-1 .compare")
    script(browser, "arguments[0].scrollIntoView({block: 'center'})", picture)
    drag = ActionChains(browser, duration=0).move_to_element_with_offset(picture, -20, 0).click_and_hold()
    drag.move_by_offset(40, 0).release().perform()
    width = script(browser, "arguments[0].getBoundingClientRect().width", picture)
    moved = float(str(find(browser, "#panel-1 input[type=range]").get_property("value")))
    assert moved == pytest.approx(50 + 100 * 20 / width, abs=1.5)


def test_variants_are_tabs_by_keyboard(browser: Chrome, page_of_two: Path) -> None:
    opened(browser, page_of_two)
    first, second = browser.find_elements(By.CSS_SELECTOR, "[role=tab]")
    assert find(browser, "#panel-1").is_displayed() and not find(browser, "#panel-2").is_displayed()
    script(browser, "arguments[0].focus()", first)
    first.send_keys(Keys.ARROW_RIGHT)
    assert browser.switch_to.active_element == second
    assert second.get_attribute("aria-selected") == "true"
    assert find(browser, "#panel-2").is_displayed() and not find(browser, "#panel-1").is_displayed()
    second.send_keys(Keys.ARROW_RIGHT)
    assert first.get_attribute("aria-selected") == "true"


def test_what_is_folded_opens_by_keyboard(browser: Chrome, page_of_two: Path) -> None:
    opened(browser, page_of_two)
    rule = find(browser, "section[aria-labelledby=verdicts] details.rule")
    assert not rule.find_element(By.CSS_SELECTOR, "p.rule").is_displayed()
    summary = rule.find_element(By.TAG_NAME, "summary")
    script(browser, "arguments[0].focus()", summary)
    summary.send_keys(Keys.ENTER)
    assert "Holm" in rule.find_element(By.CSS_SELECTOR, "p.rule").text


@pytest.mark.parametrize("dark", [False, True])
def test_numbers_of_the_map_can_be_read_on_their_cells(browser: Chrome, page_of_two: Path, dark: bool) -> None:
    opened(browser, page_of_two, dark=dark)
    browser.get(find(browser, "#fig-consolidated img").get_attribute("src") or "")
    # The inks that a dark page exchanges are none of the cells' and none of their numbers'.
    light, exchanged = script(browser, "[...document.querySelectorAll('style')].at(-1).textContent").split("@media")
    kept = re.findall(r"\.(\w+){[^}]*fill:(?:#fefefe|#262626)", light)
    assert "#1f2328" in light and exchanged.count("{fill:") > 3
    assert kept and not any(f".{name}{{" in exchanged for name in kept)
    texts = script(
        browser,
        "Array.from(document.querySelectorAll(arguments[0]), (one) => getComputedStyle(one).fill)",
        ", ".join(f".{name}" for name in kept),
    )
    assert set(texts) == {"rgb(254, 254, 254)", "rgb(38, 38, 38)"}


def test_tab_reaches_the_controls(browser: Chrome, page_of_two: Path) -> None:
    opened(browser, page_of_two)
    seen = set()
    find(browser, "body").send_keys(Keys.TAB)
    for _ in range(100):
        active = browser.switch_to.active_element
        seen.add(active.tag_name)
        active.send_keys(Keys.TAB)
    assert {"a", "summary", "button", "input"} <= seen


@pytest.mark.fault("R5", "shown as text and does nothing in a browser")
def test_markup_in_names_is_text_and_does_nothing(browser: Chrome, page_of_hostile: Path) -> None:
    opened(browser, page_of_hostile)
    assert browser.get_log("browser") == []
    assert [url for url in requested(browser) if not url.startswith("data:")] == [page_of_hostile.as_uri()]
    text = script(browser, "document.body.textContent")
    for name in MARKUP:
        assert name in text
    assert script(browser, "document.querySelectorAll('marquee, b, i, img[onerror]').length") == 0
    assert script(browser, "document.scripts.length") == 1
    assert browser.title == f"{MARKUP[0]} – ablation report"


@pytest.mark.parametrize(("dark", "bright"), [(False, True), (True, False)])
def test_light_and_dark(browser: Chrome, page_of_two: Path, dark: bool, bright: bool) -> None:
    opened(browser, page_of_two, dark=dark)
    paper, ink = (
        [int(part) for part in script(browser, f"getComputedStyle(document.body).{name}")[4:-1].split(",")]
        for name in ("backgroundColor", "color")
    )
    assert (sum(paper) > 3 * 128) is bright
    assert (sum(ink) < 3 * 128) is bright
    # The figures too: the corner of the consolidated one is paper of the same kind.
    image = find(browser, "#fig-consolidated img")
    script(browser, "arguments[0].scrollIntoView({block: 'start'})", image)
    box = script(browser, "JSON.stringify(arguments[0].getBoundingClientRect())", image)
    place = json.loads(box)
    clip = {"x": place["x"] + 1, "y": place["y"] + script(browser, "scrollY") + 1, "width": 2, "height": 2, "scale": 1}
    shot = browser.execute_cdp_cmd("Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True})
    assert (_brightness(base64.b64decode(shot["data"])) > 128) is bright


def _brightness(png: bytes) -> float:
    import io

    import numpy as np
    from PIL import Image

    return float(np.asarray(Image.open(io.BytesIO(png)).convert("L")).mean())


@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_no_width_makes_the_page_scroll_sideways(browser: Chrome, page_of_hostile: Path, width: int) -> None:
    opened(browser, page_of_hostile, width=width)
    assert script(browser, "document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 800, 1400])
def test_the_verdicts_fit_every_width(browser: Chrome, page_of_two: Path, width: int) -> None:
    opened(browser, page_of_two, width=width)
    box = "document.querySelector('.verdicts').parentElement"
    assert script(browser, f"{box}.scrollWidth - {box}.clientWidth") <= 0


def test_the_figure_of_the_study_fits_a_phone(browser: Chrome, page_of_two: Path) -> None:
    opened(browser, page_of_two, width=390)
    scrolled = script(
        browser,
        "Array.from(document.querySelectorAll('.scroll'))"
        ".filter((one) => !one.closest('details:not([open])') && one.scrollWidth > one.clientWidth)"
        ".map((one) => one.getAttribute('aria-label'))",
    )
    assert scrolled == []
    wide, narrow = browser.find_elements(By.CSS_SELECTOR, "#fig-consolidated .plot")
    assert narrow.is_displayed() and not wide.is_displayed()
    assert narrow.find_elements(By.CSS_SELECTOR, ".probe")


def test_it_prints_on_few_pages_what_is_not_folded(browser: Chrome, page_of_two: Path) -> None:
    opened(browser, page_of_two)
    data = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    pdf = base64.b64decode(data)
    assert pdf.startswith(b"%PDF")
    assert 2 < pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") <= 10
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    try:
        panels = browser.find_elements(By.CSS_SELECTOR, "[role=tabpanel]")
        assert all(panel.is_displayed() for panel in panels)
        assert not find(browser, "nav.contents").is_displayed()
        assert not find(browser, "#methods").is_displayed()
        assert script(browser, "getComputedStyle(document.querySelector('.compare .over')).clipPath") == "none"
    finally:
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_a_link_to_what_is_folded_opens_it(browser: Chrome, page_of_two: Path) -> None:
    opened(browser, page_of_two)
    assert not find(browser, "#methods").is_displayed()
    script(browser, "document.querySelector('nav.contents a[href=\"#methods\"]').click()")
    WebDriverWait(browser, 5).until(lambda _: find(browser, "#methods").is_displayed())


def test_a_study_in_progress_says_so_first(browser: Chrome, unfinished: Path) -> None:
    from ablate.report.build import build_report

    opened(browser, build_report(unfinished, only=["page"])[-1])
    note = find(browser, "[role=note]")
    assert note.is_displayed() and "15 of 20 trials" in note.text
    assert note.rect["y"] < 400
