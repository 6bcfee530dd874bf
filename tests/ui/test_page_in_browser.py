"""The page in a real browser, as a person meets it."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from crossmodal import Collection, Record
from ui import web
from ui.answers import examples
from ui.commands.demo import free_port

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("ignore::Warning:gradio")]

expect.set_options(timeout=30_000)  # a busy machine is slow, not wrong

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's chromium; a machine without one cannot run these tests, and CI must have it."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        reason = "no chromium found: the page was not tried in a browser (apt install chromium)"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=found, args=FLAGS)


@pytest.fixture
def address(collection) -> Iterator[str]:
    """The page over twelve pictures in four colours."""
    chips = examples(collection, is_sample=False)
    blocks = web.build(collection, lambda uri: Path(uri).read_bytes(), name="colours", examples=chips)
    yield web.start(blocks, free_port(7870))
    blocks.close(verbose=False)


@pytest.fixture
def page(browser, address) -> Iterator[Page]:
    """The page, opened; no request may leave this machine, and no script may fail."""
    opened = browser.new_page(viewport={"width": 1200, "height": 860})
    asked: list[str] = []
    failed: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("pageerror", lambda error: failed.append(str(error)))
    opened.goto(address)
    expect(opened.get_by_role("button", name="Find", exact=True)).to_be_visible(timeout=30_000)
    yield opened
    opened.close()
    assert [url for url in asked if not url.startswith((address, "data:", "blob:"))] == []
    assert failed == []


def set_until(field: Locator, value: str, done: Callable[[], bool]) -> None:
    """Type a number as often as a person would: a field that has just unfolded may not listen yet."""
    for _ in range(10):
        field.fill(value)
        field.press("Enter")
        for _ in range(30):
            if done():
                return
            field.page.wait_for_timeout(100)
    raise AssertionError(f"typing {value} ten times changed nothing")


def captions_of_cards(page: Page, gallery: str = "#found") -> list[str]:
    return page.locator(f"{gallery} .cm-card img").evaluate_all("all => all.map(image => image.alt)")


def visible_pictures(page: Page, gallery: str = "#found") -> int:
    return page.locator(f"{gallery} .cm-card img").evaluate_all(
        "all => all.filter(image => image.complete && image.naturalWidth > 0).length"
    )


def fits_its_width(page: Page) -> bool:
    return page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_words_and_enter_bring_the_right_pictures(page):
    box = page.get_by_role("textbox").first
    box.fill("a blue picture")
    box.press("Enter")
    expect(page.locator("#found .cm-card")).to_have_count(12)
    assert captions_of_cards(page)[:3] == ["a blue picture"] * 3
    page.wait_for_function("document.querySelectorAll('#found img').length === 12")
    assert visible_pictures(page) == 12
    scores = [float(text) for text in page.locator("#found .cm-score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)
    expect(page.get_by_text("12 pictures for “a blue picture”")).to_be_visible()


def test_an_example_searches_and_fills_the_box(page):
    page.get_by_role("button", name="a green picture", exact=True).click()
    expect(page.locator("#found .cm-card").first).to_contain_text("a green picture")
    expect(page.get_by_role("textbox").first).to_have_value("a green picture")


def test_a_search_without_words_says_what_to_do(page):
    page.get_by_role("button", name="Find", exact=True).click()
    expect(page.get_by_text("Type what you are looking for")).to_be_visible()
    expect(page.locator(".cm-card")).to_have_count(0)


def test_pressing_a_picture_brings_pictures_like_it(page):
    page.get_by_role("button", name="a red picture", exact=True).click()
    page.locator("#found .cm-card").first.click()
    expect(page.get_by_role("tab", name="Pictures like this")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#alike .cm-card")).to_have_count(11)
    assert captions_of_cards(page, "#alike")[:2] == ["a red picture"] * 2
    expect(page.locator("#alike-about")).to_contain_text("a red picture")
    expect(page.locator("#alike-picture img")).to_be_visible()
    page.locator("#alike .cm-card").nth(6).click()
    expect(page.locator("#alike-about")).not_to_contain_text("a red picture")


def test_an_uploaded_picture_brings_words(page, tmp_path, make_picture):
    page.get_by_role("tab", name="Words for a picture").click()
    mine = make_picture(tmp_path / "mine.png", "yellow", seed=99, size=(400, 300))
    page.locator("#words-picture input[type=file]").set_input_files(mine)
    expect(page.locator(".cm-captions .cm-words").first).to_have_text("a yellow picture")


def test_the_number_of_hits_can_be_changed(page):
    page.get_by_role("button", name="a red picture", exact=True).click()
    expect(page.locator("#found .cm-card")).to_have_count(12)
    page.get_by_text("How many, and how good").click()
    number = page.locator("#find-count input[type=number]")
    expect(number).to_be_visible()
    set_until(number, "5", lambda: page.locator("#found .cm-card").count() == 5)
    number.fill("")
    expect(page.locator("#found .cm-card").first).to_be_visible()
    least = page.locator("#find-least input[type=number]")
    set_until(least, "1", lambda: page.get_by_text("Nothing scores 1.00 or more").is_visible())


def test_an_uploaded_picture_brings_pictures(page, tmp_path, make_picture):
    page.get_by_role("tab", name="Pictures like this").click()
    mine = make_picture(tmp_path / "mine.png", "yellow", seed=99, size=(400, 300))
    page.locator("#alike-picture input[type=file]").set_input_files(mine)
    expect(page.locator("#alike .cm-card")).to_have_count(12)
    assert captions_of_cards(page, "#alike")[:3] == ["a yellow picture"] * 3
    expect(page.locator("#alike-picture img")).to_be_visible()
    page.locator("#alike-picture").get_by_role("button", name="Remove Image").click()
    expect(page.get_by_text("Bring a picture, or press one")).to_be_visible()
    expect(page.locator("#alike .cm-card")).to_have_count(0)


def test_a_file_that_is_no_picture_is_answered_kindly(page, tmp_path):
    page.get_by_role("tab", name="Words for a picture").click()
    broken = tmp_path / "holiday.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    page.locator("#words-picture input[type=file]").set_input_files(broken)
    expect(page.get_by_text("holiday.png cannot be used")).to_be_visible()
    expect(page.locator(".cm-captions")).to_have_count(0)
    expect(page.locator("#words-picture img")).to_have_count(0)


def test_a_fault_of_ours_is_told_in_a_sentence_and_the_next_search_works(page, collection, monkeypatch):
    def break_down(*_, **__):
        raise RuntimeError("a wheel came off")

    with monkeypatch.context() as broken:
        broken.setattr(collection, "search", break_down)
        page.get_by_role("button", name="a red picture", exact=True).click()
        expect(page.get_by_text("Something went wrong on our side")).to_be_visible()
    expect(page.get_by_text("Error", exact=True)).to_have_count(0)
    page.get_by_role("button", name="a green picture", exact=True).click()
    expect(page.locator("#found .cm-card").first).to_contain_text("a green picture")


def test_the_collection_tab_tells_the_facts(page):
    page.get_by_role("tab", name="Collection").click()
    for fact in ("toy, 16 dimensions", "number (int64)", "on the CPU"):
        expect(page.get_by_text(fact)).to_be_visible()


@pytest.mark.parametrize("width", [320, 375, 768])
def test_a_narrow_screen_never_scrolls_sideways(page, width):
    page.set_viewport_size({"width": width, "height": 760})
    assert fits_its_width(page)
    page.get_by_role("button", name="a red picture", exact=True).click()
    expect(page.locator("#found .cm-card")).to_have_count(12)
    assert fits_its_width(page)
    page.locator("#found .cm-card").first.click()
    expect(page.locator("#alike .cm-card")).to_have_count(11)
    assert fits_its_width(page)


def test_a_caption_is_shown_as_it_is_and_never_run(browser, tmp_path, toy_encoder, make_picture):
    caption = "<img src=x onerror='window.ran=1'> ${window.ran=2} {{value}} `red`"
    made = Collection.create(tmp_path / "c", toy_encoder)
    path = make_picture(tmp_path / "a.png", "red")
    made.add([Record(key=caption, image=path, captions=(caption,), uri=str(path))])
    blocks = web.build(made, lambda uri: Path(uri).read_bytes(), name="hostile", examples=["red"])
    page = browser.new_page()
    try:
        page.goto(web.start(blocks, free_port(7870)))
        page.get_by_role("button", name="red", exact=True).click()
        expect(page.locator(".cm-card .cm-caption")).to_have_text(caption)
        page.locator(".cm-card").click()
        expect(page.locator("#alike-about dd").first).to_have_text(caption)
        assert page.evaluate("window.ran") is None
    finally:
        page.close()
        blocks.close(verbose=False)


def test_no_file_of_this_machine_is_served(page, address, collection, tmp_path):
    for path in ("/etc/passwd", str(tmp_path / "p" / "red-0.png"), str(collection.path), __file__):
        answer = page.request.get(f"{address}gradio_api/file={path}")
        assert answer.status in (403, 404), path
