"""Draw docs/page.png: the page over the bundled sample, in a real browser, after some words were typed."""

import argparse
import io
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from crossmodal.sources import read_uri
from ui import web
from ui.answers import examples
from ui.commands.demo import SAMPLE, free_port, prepare

WORDS = "musical instrument"
SIZE = {"width": 1180, "height": 760}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


def main() -> None:
    """Take the picture and say how large it became."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words", default=WORDS)
    parser.add_argument("--output", type=Path, default=Path("docs/page.png"))
    options = parser.parse_args()
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("no chromium found (apt install chromium)")
    collection = prepare(SAMPLE)
    blocks = web.build(collection, read_uri, name=SAMPLE, examples=examples(collection, is_sample=True))
    address = web.start(blocks, free_port(7860))
    try:
        picture = photograph(address, options.words, browser)
    finally:
        blocks.close(verbose=False)
    picture.save(options.output, optimize=True)
    print(f"{options.output}: {options.output.stat().st_size / 1000:.0f} kB")


def photograph(address: str, words: str, browser: str) -> Image.Image:
    """Type words into the page and give what is then seen."""
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=browser, args=FLAGS).new_page(viewport=SIZE)
        page.goto(address)
        box = page.get_by_role("textbox").first
        box.fill(words)
        box.press("Enter")
        page.wait_for_selector("#found .cm-card img")
        page.wait_for_timeout(500)
        return Image.open(io.BytesIO(page.screenshot())).convert("RGB")


if __name__ == "__main__":
    main()
