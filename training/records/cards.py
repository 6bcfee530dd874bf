"""Queries as cards of a page: small pictures, words, ranks and scores; every word is escaped here."""

import base64
import html
import io

from PIL import Image

from crossmodal.errors import CrossmodalError
from crossmodal.images import load_image
from training.data.examples import Examples
from training.records.queries import Extremes, Query

SIDE = 144
"""Pixels of the longer side of a small picture."""


def cards(examples: Examples | None, found: Extremes | None, *, by_words: bool) -> str:
    """Give the worst and the best queries of one direction as HTML; nothing where there are none."""
    if examples is None or found is None:
        return ""
    out = ""
    for title, queries in (("Worst", found.worst), ("Best", found.best)):
        if queries:
            shown = "".join(_card(examples, query, by_words) for query in queries)
            out += f'<h3>{title}</h3><ul class="cards">{shown}</ul>'
    return out


def _card(examples: Examples, query: Query, by_words: bool) -> str:
    missed = query.rank > 1
    instead = f"{'found first' if missed else 'next after it'} {query.other_score:.2f}"
    asked = f"{'asked for' if by_words else 'asked with'} {query.score:.2f}"
    own = _picture(examples, query.row, query.text, asked)
    rank = f'<span class="rank{" missed" if missed else ""}">{query.rank:,}</span>'
    head = f'<p class="place">rank {rank} of {query.gallery:,}</p>'
    words = f'<p class="words">{html.escape(query.text)}</p>'
    if by_words:
        other = _picture(examples, query.other_row, query.other_text, instead)
        return f'<li>{head}{words}<div class="pair">{own}{other}</div></li>'
    other = f'<p class="words other"><small>{instead}</small>{html.escape(query.other_text)}</p>'
    return f'<li>{head}<div class="pair">{own}</div>{words}{other}</li>'


def _picture(examples: Examples, row: int, text: str, told: str) -> str:
    address, words = _address(examples, row), html.escape(text)
    image = f'<img src="{address}" alt="{words}" title="{words}">' if address else "<i>cannot be read</i>"
    return f'<figure><div class="frame">{image}</div><figcaption>{told}</figcaption></figure>'


def _address(examples: Examples, row: int) -> str:
    """Give a small copy of a picture as a ``data:`` address; nothing where it cannot be read any more."""
    try:
        picture = load_image(examples.picture(row), at_least=SIDE).copy()
    except (CrossmodalError, OSError):
        return ""
    picture.thumbnail((SIDE, SIDE), Image.Resampling.BICUBIC)
    written = io.BytesIO()
    picture.save(written, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode("ascii")
