"""The page in a real browser: it renders, answers clicks and keys, and prints."""

import base64
import json
import shutil

import numpy as np
import pytest

from cxrssl.analysis.correspondence import best_match
from tests.reporting.cards import card, labelled_images, save_encoder

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    encoder = save_encoder(folder / "encoder.safetensors")
    page = folder / "card.html"
    page.write_text(card(labelled_images(folder), folder, {"ours": encoder}), encoding="utf-8")
    return page


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no chromium was found")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, file):
    """Return a function that opens the page, and fail if it complains or asks for anything."""
    complaints, contexts = [], []

    def call(width=1280, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: complaints.extend(
            [request.url] * (not request.url.startswith(("file:", "data:")))))  # fmt: skip
        page.goto(file.as_uri())
        return page

    yield call
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_renders_within_the_width_of_the_screen(opened, width, scheme):
    page = opened(width, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    broken = "[...document.images].filter((image) => !image.complete || !image.naturalWidth).length"
    assert page.evaluate(broken) == 0
    assert page.locator("h1").is_visible()
    assert page.locator("section").count() == 11


def tokens(page):
    """Return the patch tokens of the page, (images, patches, width)."""
    payload = json.loads(page.locator(".correspondence script").text_content())
    codes = np.frombuffer(base64.b64decode(payload["codes"]), np.int8)
    rows, columns = payload["grid"]
    return codes.reshape(-1, rows * columns, payload["width"]).astype(np.float64)


def matches(page):
    return [int(film.get_attribute("data-match")) for film in page.locator(".film").all()]


def test_a_click_finds_the_best_match_in_every_other_image(opened):
    page = opened()
    found = tokens(page)
    assert found.shape[:2] == (3, 16)
    film = page.locator(".film").nth(1)
    film.scroll_into_view_if_needed()
    box = film.bounding_box()
    film.click(position={"x": 0.6 * box["width"], "y": 0.3 * box["height"]})
    patch = 1 * 4 + 2
    wanted = [best_match(found[1, patch], of_image) for of_image in found]
    wanted[1] = patch
    assert matches(page) == wanted
    assert "Image 2, row 2, column 3" in page.locator(".status").text_content()
    drawn = (
        "(canvas) => canvas.getContext('2d').getImageData(0, 0, 4, 4).data.some((value) => value)"
    )
    assert page.locator(".film canvas").first.evaluate(drawn)


def test_keys_move_the_patch_and_stop_at_the_border(opened):
    page = opened()
    film = page.locator(".film").first
    film.click(position={"x": 3, "y": 3})
    for key, patch in (("ArrowRight", 1), ("ArrowDown", 5), ("ArrowUp", 1), ("ArrowUp", 1)):
        film.press(key)
        assert matches(page)[0] == patch


def test_points_are_buttons(opened):
    page = opened()
    button = page.get_by_role("button", name="Point 4")
    button.click()
    assert button.get_attribute("aria-pressed") == "true"
    assert matches(page)[0] == 2 * 4 + 1


def test_folds_open_for_printing_and_it_prints(opened):
    page = opened()
    assert page.locator("details").count() > 0
    assert not page.locator("details").first.evaluate("(fold) => fold.open")
    assert page.pdf(format="A4").startswith(b"%PDF")
    assert page.locator("details").first.evaluate("(fold) => fold.open")
