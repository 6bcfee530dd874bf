"""The page: where everything stands, and what happens when something is pressed."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_RUN_HISTORY"] = "False"

import gradio as gr

from ui.page import Page
from ui.thumbnails import ReadUri

if TYPE_CHECKING:
    from crossmodal.collection import Collection

HOST = "127.0.0.1"
CSS = Path(__file__).with_name("page.css")
LARGEST_UPLOAD = "64mb"
DELETE_UPLOADS = (3600, 3600)
"""Each hour, what was uploaded more than an hour ago is deleted; the rest when the page is closed."""

EVENT: dict[str, Any] = {"show_progress": "minimal", "api_visibility": "private"}

ON_PRESS = """element.addEventListener('click', (event) => {
  const card = event.target.closest('[data-key]');
  if (card) trigger('click', {key: card.dataset.key});
});"""
READ_OUT = "element.setAttribute('aria-live', 'polite');"
TO_THE_TOP = "() => { window.scrollTo({top: 0, behavior: 'smooth'}); }"


def build(collection: "Collection", read: ReadUri, *, name: str, examples: Sequence[str]) -> gr.Blocks:
    """Lay the page out over a collection.

    :param read: gives a picture's file by its uri, as ``crossmodal.sources.read_uri`` does.
    :param name: what the page calls the collection.
    :param examples: things to look for, offered as buttons.
    """
    page = Page(collection, read)
    with gr.Blocks(title="Pictures by words", analytics_enabled=False, delete_cache=DELETE_UPLOADS) as blocks:
        gr.HTML(page.header(name))
        with gr.Tabs(selected="find", overflow_behavior="wrap") as tabs:
            with gr.Tab("Find", id="find"):
                found = _find_tab(page, examples)
            with gr.Tab("Words for a picture", id="words"):
                _words_tab(page)
            with gr.Tab("Pictures like this", id="alike"):
                show_alike = _alike_tab(page, tabs)
            with gr.Tab("Collection", id="collection") as facts:
                about = gr.HTML(page.about())
        show_alike(found)
        facts.select(page.about, None, about, **EVENT)
    blocks.queue(default_concurrency_limit=4)
    return blocks


def _find_tab(page: Page, examples: Sequence[str]) -> gr.HTML:
    """Words to pictures; gives the gallery."""
    with gr.Row(equal_height=True):
        words = gr.Textbox(
            show_label=False,
            label="What are you looking for?",
            placeholder="What are you looking for? For example: "
            + (examples[0] if examples else "a red bus"),
            autofocus=True,
            container=False,
            scale=6,
            max_lines=1,
            elem_id="words",
        )
        go = gr.Button("Find", variant="primary", scale=1, min_width=96, elem_id="find-button")
    with gr.Row(elem_classes="cm-chips"):
        chips = [gr.Button(example, size="sm", variant="secondary") for example in examples]
    with gr.Accordion("How many, and how good", open=False, elem_id="find-options"), gr.Row():
        count = _slider(1, 60, 12, label="Pictures", elem_id="find-count")
        least = _slider(0, 1, 0, step=0.01, label="Least score (0 shows all)", elem_id="find-least")
    note, hits = _results("found", page.find("", 1, 0).note, ON_PRESS)
    asked, shown = [words, count, least], [note, hits]

    def find(looked_for: str, k: float, at_least: float) -> tuple[str, str]:
        return page.find(looked_for, k, at_least)[:2]

    def find_again(looked_for: str, k: float, at_least: float) -> tuple[str, str]:
        return find(looked_for, k, at_least) if looked_for.strip() else (gr.skip(), gr.skip())

    gr.on([words.submit, go.click], find, asked, shown, **EVENT)
    gr.on([count.change, least.change], find_again, asked, shown, trigger_mode="always_last", **EVENT)
    for chip, example in zip(chips, examples, strict=True):
        chip.click(_taking(example, find), [count, least], [words, *shown], **EVENT)
    return hits


def _words_tab(page: Page) -> None:
    """A picture to words."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=260):
            picture = _upload("Your picture", "words-picture")
            count = _slider(1, 50, 10, label="Captions")
        with gr.Column(scale=3, min_width=300):
            note, hits = _results("captions", page.words(None, 1).note)

    def brought(path: str | None, k: float) -> tuple[Any, str, str]:
        shown = page.words(path, k)
        return _keep_unless(shown.refused), shown.note, shown.hits

    gr.on([picture.input, picture.clear], brought, [picture, count], [picture, note, hits], **EVENT)

    def counted(path: str | None, k: float) -> tuple[str, str]:
        return page.words(path, k)[:2]

    count.change(counted, [picture, count], [note, hits], trigger_mode="always_last", **EVENT)


def _alike_tab(page: Page, tabs: gr.Tabs) -> Callable[[gr.HTML], None]:
    """A picture to pictures; gives what makes the pictures of a gallery lead here."""
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=260):
            picture = _upload("A picture", "alike-picture")
            about = gr.HTML(elem_id="alike-about")
            count = _slider(1, 60, 12, label="Pictures")
            key = gr.State("")
        with gr.Column(scale=4, min_width=300):
            note, hits = _results("alike", page.alike(None, 1).note, ON_PRESS)

    def brought(path: str | None, k: float) -> tuple[str, Any, str, str, str]:
        shown = page.alike(path, k)
        return "", _keep_unless(shown.refused), "", shown.note, shown.hits

    def counted(path: str | None, k: float, chosen: str) -> tuple[str, str]:
        shown = page.alike_to_record(chosen, k) if chosen else page.alike(path, k)
        return shown.note, shown.hits

    def pressed(k: float, event: gr.EventData) -> tuple[Any, ...]:
        chosen = str(event.key)
        return gr.Tabs(selected="alike"), chosen, *page.alike_to_record(chosen, k)

    outcome = [key, picture, about, note, hits]
    gr.on([picture.input, picture.clear], brought, [picture, count], outcome, **EVENT)
    count.change(counted, [picture, count, key], [note, hits], trigger_mode="always_last", **EVENT)

    def lead_here(gallery: gr.HTML) -> None:
        press = gallery.click(pressed, [count], [tabs, *outcome], **EVENT)
        press.then(None, js=TO_THE_TOP)

    lead_here(hits)
    return lead_here


def _results(name: str, note: str, script: str | None = None) -> tuple[gr.HTML, gr.HTML]:
    """A sentence, read out when it changes, and below it what was found."""
    with gr.Column(elem_classes="cm-results"):
        return gr.HTML(note, js_on_load=READ_OUT), gr.HTML(elem_id=name, js_on_load=script)


def _slider(least: float, most: float, usual: float, *, step: float = 1, **options: Any) -> gr.Slider:
    """A number to slide or to type; an emptied field counts as ``usual``, what is out of range as its end."""
    slider = gr.Slider(least, most, value=usual, step=step, **options)
    # Gradio would refuse both, and with them every event that the slider takes part in, with a bare "Error".
    slider.preprocess = lambda payload: usual if payload is None else min(max(payload, least), most)
    return slider


def _upload(label: str, name: str) -> gr.Image:
    """A place to bring a picture to; an event gets the path of the file as it came."""
    image = gr.Image(
        label=label,
        sources=["upload", "clipboard"],
        type="filepath",
        height=300,
        elem_id=name,
        buttons=["fullscreen"],
        placeholder="Drop a picture here, paste one, or press to choose",
    )
    # Gradio would decode the file itself, and answer a broken one with no more than "Error".
    image.preprocess = lambda payload: None if payload is None else payload.path
    return image


def _keep_unless(refused: bool) -> Any:
    """Leave an uploaded picture where it is, or take a file away that is none."""
    return None if refused else gr.skip()


def _taking(words: str, find: Callable[..., tuple[str, str]]) -> Callable[[int, float], tuple[str, str, str]]:
    """Make a search for given words, which are put into the box as well."""
    return lambda count, least: (words, *find(words, count, least))


def start(blocks: gr.Blocks, port: int) -> str:
    """Serve the page on this machine alone and give its address; ``blocks.close()`` ends it."""
    for name in ("no_proxy", "NO_PROXY"):  # gradio asks itself whether it is there, and not through a proxy
        os.environ[name] = ",".join(filter(None, [os.environ.get(name), HOST]))
    _, address, _ = blocks.launch(
        server_name=HOST,
        server_port=port,
        share=False,
        prevent_thread_lock=True,
        quiet=True,
        footer_links=[],
        ssr_mode=False,
        enable_monitoring=False,
        max_file_size=LARGEST_UPLOAD,
        theme=_theme(),
        css_paths=CSS,
    )
    return str(address)


def _theme() -> gr.themes.Base:
    """Quiet colours, and the fonts that the reader's system has: nothing is fetched from elsewhere."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.teal,
        secondary_hue=gr.themes.colors.teal,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_lg,
        font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "monospace"],
    ).set(
        color_accent="*primary_600",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_large_text_weight="500",
        slider_color="*primary_600",
    )
