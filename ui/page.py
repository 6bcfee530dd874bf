"""What the page shows for each thing a person does; the layout around it is in ``ui.web``."""

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, ParamSpec, TypeVar

from PIL import Image

from crossmodal.errors import CrossmodalError
from crossmodal.images import load_image
from ui import cards
from ui.answers import Answer, pictures_for_words, pictures_like, words_for_picture
from ui.thumbnails import ReadUri, Thumbnails

if TYPE_CHECKING:
    from crossmodal.collection import Collection

SHOWN_SIDE = 1024
OUR_FAULT = "Something went wrong on our side; the terminal tells more."

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger("crossmodal.page")


class Shown(NamedTuple):
    """A note above the hits, and the hits, both as HTML; ``refused`` is a picture that is none."""

    note: str
    hits: str
    refused: bool = False


class ShownAlike(NamedTuple):
    """A picture, what is known of it, and what is like it."""

    picture: Image.Image | None
    about: str
    note: str
    hits: str


def _or_sorry(shown: Callable[[str], R]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Let a method that fails show a sentence, where Gradio would show a bare "Error".

    ``shown`` makes what the method gives of the sentence, which is HTML.
    """

    def guarded(method: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(method)
        def guard(*args: P.args, **options: P.kwargs) -> R:
            try:
                return method(*args, **options)
            except CrossmodalError as error:
                why = str(error)
            except Exception:
                _log.exception("the page cannot answer")
                why = OUR_FAULT
            return shown(cards.note(Answer(note=why, kind="refused")))

        return guard

    return guarded


class Page:
    """Answers for one collection; may be asked from several threads."""

    def __init__(self, collection: "Collection", read: ReadUri) -> None:
        self._collection = collection
        self._read = read
        self._thumbnails = Thumbnails(read)

    def header(self, name: str) -> str:
        """Give the head of the page."""
        return cards.header(self._collection.info(), name)

    @_or_sorry(str)
    def about(self) -> str:
        """Give the collection's facts as they are now."""
        return cards.about_collection(self._collection.info())

    # A slider may give a whole number as a float, so each k is made one here.

    @_or_sorry(lambda note: Shown(note, ""))
    def find(self, words: str, k: float, least: float) -> Shown:
        """Words to pictures."""
        return self._gallery(pictures_for_words(self._collection, words, int(k), least))

    @_or_sorry(lambda note: Shown(note, ""))
    def words(self, picture: str | None, k: float) -> Shown:
        """A picture to words."""
        answer = words_for_picture(self._collection, picture, int(k))
        return Shown(cards.note(answer), cards.captions(answer.hits), answer.kind == "refused")

    @_or_sorry(lambda note: Shown(note, ""))
    def alike(self, picture: str | None, k: float) -> Shown:
        """A picture that a person brought to pictures."""
        return self._gallery(pictures_like(self._collection, picture, int(k)))

    @_or_sorry(lambda note: ShownAlike(None, "", note, ""))
    def alike_to_record(self, key: str, k: float) -> ShownAlike:
        """A picture of the collection to the others."""
        records = self._collection.get([key])
        if not records:
            gone = Answer(note="This picture is no longer in the collection. Search again.", kind="refused")
            return self._alike(None, "", gone)
        about = cards.about_record(records[0])
        try:
            data = self._read(records[0].uri)
            picture = load_image(data, at_least=SHOWN_SIDE)
        except (CrossmodalError, OSError) as error:
            gone = Answer(note=f"The file of this picture cannot be read: {error}", kind="refused")
            return self._alike(None, about, gone)
        picture.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        return self._alike(picture, about, pictures_like(self._collection, data, int(k), without=key))

    def _alike(self, picture: Image.Image | None, about: str, answer: Answer) -> ShownAlike:
        shown = self._gallery(answer)
        return ShownAlike(picture, about, shown.note, shown.hits)

    def _gallery(self, answer: Answer) -> Shown:
        addresses = self._thumbnails.addresses([hit.uri for hit in answer.hits])
        shown = cards.gallery(answer.hits, addresses)
        return Shown(cards.note(answer), shown, answer.kind == "refused")
