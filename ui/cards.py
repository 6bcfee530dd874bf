"""Answers as HTML; every word that comes from a collection is escaped here."""

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ui.answers import Answer

if TYPE_CHECKING:
    from crossmodal.collection import CollectionInfo
    from crossmodal.collection.schema import StoredRecord
    from crossmodal.types import Hit

from ui.facts import facts

_TEMPLATE_SIGNS = {ord("$"): "&#36;", ord("{"): "&#123;", ord("}"): "&#125;", ord("`"): "&#96;"}


def escape(text: str) -> str:
    """Make text safe inside HTML, its attributes, and Gradio's templates around them."""
    return html.escape(text).translate(_TEMPLATE_SIGNS)


def note(answer: Answer) -> str:
    """Give the sentence above the hits."""
    return f'<p class="cm-note cm-{answer.kind}">{escape(answer.note)}</p>'


def gallery(hits: "Sequence[Hit]", addresses: Sequence[str]) -> str:
    """Lay pictures out in a grid: each is a button with its caption and score."""
    if not hits:
        return ""
    cards = "".join(_card(hit, address) for hit, address in zip(hits, addresses, strict=True))
    return f'<ul class="cm-grid">{cards}</ul>'


def _card(hit: "Hit", address: str) -> str:
    caption = escape(_first_line(hit.text) or hit.key)
    picture = (
        f'<img src="{address}" alt="{caption}">'
        if address
        else '<span class="cm-gone">the file is gone or cannot be read</span>'
    )
    return (
        f'<li><button type="button" class="cm-card" data-key="{escape(hit.key)}" '
        f'title="{caption}&#10;Press for pictures like this">'
        f'<span class="cm-frame">{picture}</span>'
        f'<span class="cm-caption">{caption}</span>'
        f'<span class="cm-score">{hit.score:.2f}</span></button></li>'
    )


def captions(hits: "Sequence[Hit]") -> str:
    """Give captions as a table, each with its score as a bar from 0 to 1."""
    if not hits:
        return ""
    rows = "".join(
        f'<tr><td class="cm-words">{escape(hit.text)}</td><td class="cm-bar">'
        f'<span style="width:{min(max(hit.score, 0.0), 1.0):.1%}"></span></td>'
        f'<td class="cm-score">{hit.score:.2f}</td></tr>'
        for hit in hits
    )
    head = "<thead><tr><th>caption</th><th></th><th>score</th></tr></thead>"
    return f'<table class="cm-captions">{head}<tbody>{rows}</tbody></table>'


def about_record(record: "StoredRecord") -> str:
    """Tell what the collection knows of one of its pictures."""
    told = {"caption": " / ".join(record.captions), **_shown(record.metadata), "path": record.uri}
    return _list({name: value for name, value in told.items() if value})


def about_collection(info: "CollectionInfo") -> str:
    """Tell the facts of a collection."""
    return _list(facts(info))


def header(info: "CollectionInfo", name: str) -> str:
    """Give the head of the page: what one can do here, and with what."""
    facts_line = f"{info.records:,} pictures · {name} · encoder {info.encoder['name']}"
    return f'<header class="cm-head"><h1>Pictures by words</h1><p>{escape(facts_line)}</p></header>'


def _list(told: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in told.items())
    return f'<dl class="cm-facts">{rows}</dl>'


def _shown(metadata: Mapping[str, object]) -> dict[str, str]:
    return {name: str(value) for name, value in metadata.items() if value is not None}


def _first_line(text: str) -> str:
    return text.strip().split("\n", 1)[0]
