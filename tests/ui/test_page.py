"""What the page shows: answers, their HTML, and the small pictures in it."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from crossmodal import Collection, Hit, Record
from crossmodal.errors import CollectionError, SourceError
from ui import answers, cards, web
from ui.page import Page
from ui.thumbnails import Thumbnails

HOSTILE = "<script>alert(1)</script>\"'&${alert(2)}{{value}}`"


def read(uri: str) -> bytes:
    return Path(uri).read_bytes()


@pytest.fixture
def page(collection) -> Page:
    return Page(collection, read)


# -- answers ------------------------------------------------------------------------------------------------


def test_words_find_pictures_the_best_first(collection):
    answer = answers.pictures_for_words(collection, "  a red picture ", 12, 0.0)
    assert answer.kind == "found"
    assert answer.note == "12 pictures for “a red picture”, the best first"
    assert {hit.text for hit in answer.hits[:3]} == {"a red picture"}
    scores = [hit.score for hit in answer.hits]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("words", ["", "   "])
def test_no_words_are_answered_with_what_to_do(collection, words):
    answer = answers.pictures_for_words(collection, words, 12, 0.0)
    assert (answer.kind, list(answer.hits)) == ("nothing", [])
    assert "Type" in answer.note


def test_a_least_score_nothing_reaches_is_named(collection):
    answer = answers.pictures_for_words(collection, "red", 12, 1.0)
    assert (answer.kind, list(answer.hits)) == ("nothing", [])
    assert "1.00" in answer.note


def test_an_empty_collection_says_how_to_fill_it(tmp_path, toy_encoder):
    empty = Collection.create(tmp_path / "empty", toy_encoder)
    assert "crossmodal index" in answers.pictures_for_words(empty, "red", 5, 0.0).note
    assert "no captions" in answers.words_for_picture(empty, Image.new("RGB", (9, 9)), 5).note


def test_a_picture_finds_captions_each_once(collection, tmp_path):
    answer = answers.words_for_picture(collection, str(tmp_path / "p" / "blue-2.png"), 3)
    assert len(answer.hits) == 3
    assert answer.hits[0].text == "a blue picture"
    assert len({hit.text for hit in answer.hits}) == 3


def test_pictures_like_one_of_the_collection_leave_itself_out(collection, tmp_path, toy_encoder):
    picture = str(tmp_path / "p" / "blue-2.png")
    files = sorted((tmp_path / "p").iterdir())
    embeddings = toy_encoder.encode_images(files)
    scores = embeddings @ embeddings[files.index(Path(picture))]
    ranked = [file.name for _, file in sorted(zip(scores, files, strict=True), reverse=True)]
    assert ranked[0] == "blue-2.png"
    alike = answers.pictures_like(collection, picture, 4).hits
    others = answers.pictures_like(collection, picture, 4, without="blue-2.png").hits
    assert [hit.key for hit in alike] == ranked[:4]
    assert [hit.key for hit in others] == ranked[1:5]


@pytest.mark.parametrize("ask", [answers.words_for_picture, answers.pictures_like])
def test_a_broken_upload_is_answered_kindly_and_without_our_paths(collection, tmp_path, ask):
    broken = tmp_path / "holiday.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n broken")
    answer = ask(collection, str(broken), 5)
    assert answer.kind == "refused"
    assert answer.note.startswith("holiday.png cannot be used: ")
    assert str(tmp_path) not in answer.note


def test_examples_are_short_captions_of_the_collection(collection):
    chips = answers.examples(collection, is_sample=False)
    assert set(chips) == {f"a {colour} picture" for colour in ("red", "green", "blue", "yellow")}
    assert answers.examples(collection, is_sample=True) == list(answers.SAMPLE_EXAMPLES)


# -- html ---------------------------------------------------------------------------------------------------


def assert_harmless(shown: str) -> None:
    for sign in ("<script", "${", "{{", "`", "\"'"):
        assert sign not in shown


def test_words_of_a_collection_are_never_taken_for_html_or_templates(tmp_path, toy_encoder, make_picture):
    made = Collection.create(tmp_path / "c", toy_encoder)
    path = make_picture(tmp_path / "a.png", "red")
    record = Record(key=HOSTILE, image=path, captions=(HOSTILE,), metadata={"author": HOSTILE}, uri=str(path))
    made.add([record])
    page = Page(made, read)
    for shown in (
        *page.find(HOSTILE, 5, 0.0)[:2],
        *page.words(str(path), 5)[:2],
        page.header(HOSTILE),
        page.about(),
    ):
        assert_harmless(shown)
    assert_harmless(page.alike_to_record(HOSTILE, 5).about)


def test_a_picture_in_the_gallery_has_its_caption_as_alternative_text(page):
    shown = page.find("red", 1, 0.0).hits
    assert 'alt="a red picture"' in shown
    assert 'src="data:image/jpeg;base64,' in shown


def test_a_picture_whose_file_is_gone_is_told_not_broken(page, tmp_path):
    for file in (tmp_path / "p").iterdir():
        file.unlink()
    assert "the file is gone" in page.find("red", 2, 0.0).hits
    shown = page.alike_to_record("red-0.png", 5)
    assert shown.picture is None
    assert "cannot be read" in shown.note
    assert "a red picture" in shown.about


def test_a_record_pressed_is_shown_with_what_is_known_of_it(page):
    shown = page.alike_to_record("green-5.png", 3)
    assert shown.picture.size == (32, 24)
    for words in ("a green picture", "number", "5", "green-5.png"):
        assert words in shown.about
    assert shown.hits.count("<li>") == 3


def test_a_slider_may_give_floats(page, tmp_path):
    picture = str(tmp_path / "p" / "blue-2.png")
    assert page.find("red", 2.0, 0.0).hits.count("<li>") == 2
    assert page.alike(picture, 3.0).hits.count("<li>") == 3
    assert page.alike_to_record("blue-2.png", 3.0).hits.count("<li>") == 3
    assert page.words(picture, 2.0).hits.count('class="cm-words"') == 2


def test_a_record_removed_meanwhile_is_told(page, collection):
    collection.remove(["green-5.png"])
    assert "no longer in the collection" in page.alike_to_record("green-5.png", 3).note


def test_a_fault_of_ours_is_told_in_a_sentence_and_kept_for_the_terminal(
    page, collection, tmp_path, monkeypatch, caplog
):
    def break_down(*_, **__):
        raise RuntimeError("a wheel came off")

    for method in ("search", "get", "info"):
        monkeypatch.setattr(collection, method, break_down)
    picture = str(tmp_path / "p" / "blue-2.png")
    notes = [
        page.find("red", 3, 0.0).note,
        page.words(picture, 3).note,
        page.alike(picture, 3).note,
        page.alike_to_record("blue-2.png", 3).note,
        page.about(),
    ]
    assert all("Something went wrong on our side; the terminal tells more" in note for note in notes)
    assert not page.words(picture, 3).refused
    assert caplog.text.count("RuntimeError: a wheel came off") == 6


def test_what_the_reader_can_mend_is_told_as_it_is(page, collection, monkeypatch):
    def refuse():
        raise CollectionError("c is <gone>")

    monkeypatch.setattr(collection, "info", refuse)
    assert "c is &lt;gone&gt;" in page.about()


@pytest.mark.parametrize(("score", "width"), [(-0.4, "0.0%"), (0.375, "37.5%"), (1.0000001, "100.0%")])
def test_bars_stay_within_their_table(score, width):
    shown = cards.captions([Hit(key="k", target="text", score=score, uri="", text="a cat")])
    assert f"width:{width}" in shown


# -- thumbnails ---------------------------------------------------------------------------------------------


def decoded(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))


@pytest.mark.parametrize(("size", "expected"), [((1600, 800), (320, 160)), ((60, 90), (60, 90))])
def test_thumbnails_keep_the_shape_and_are_never_larger_than_needed(tmp_path, make_picture, size, expected):
    path = make_picture(tmp_path / "a.png", "blue", size=size)
    (address,) = Thumbnails(read).addresses([str(path)])
    small = decoded(address)
    assert small.size == expected
    assert small.getpixel((expected[0] // 2, expected[1] // 2)) == pytest.approx((30, 60, 220), abs=4)


def test_thumbnails_are_made_once_and_the_oldest_given_up(tmp_path, make_picture):
    asked: list[str] = []
    small = Thumbnails(lambda uri: asked.append(uri) or read(uri), keep=2)
    a, b, c = (str(make_picture(tmp_path / f"{name}.png", "red", seed=1)) for name in "abc")
    for uris in ([a], [b], [a], [c], [a], [b]):
        small.addresses(uris)
    assert asked == [a, b, c, b]


def test_what_cannot_be_read_is_left_empty_and_tried_again(tmp_path, make_picture):
    def refuse(_: str) -> bytes:
        raise SourceError("gone")

    small = Thumbnails(refuse)
    assert small.addresses(["x", "y"]) == ["", ""]
    later = tmp_path / "later.png"
    small = Thumbnails(read)
    assert small.addresses([str(later)]) == [""]
    make_picture(later)
    assert small.addresses([str(later)])[0].startswith("data:image/jpeg")


@pytest.mark.filterwarnings("ignore::Warning:gradio")
def test_a_number_that_was_emptied_or_is_out_of_range_stops_nothing(collection):
    blocks = web.build(collection, read, name="colours", examples=[])
    sliders = [block for block in blocks.blocks.values() if block.get_block_name() == "slider"]
    assert len(sliders) == 4
    for slider in sliders:
        assert slider.preprocess(None) == slider.value
        assert slider.preprocess(slider.minimum - 1) == slider.minimum
        assert slider.preprocess(slider.maximum + 1) == slider.maximum
        assert slider.preprocess(slider.maximum) == slider.maximum
