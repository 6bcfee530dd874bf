"""What an SVG of OpenClipart says about itself, and which part of it is a caption."""

import contextlib
import html
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree


@dataclass(frozen=True, slots=True)
class Drawing:
    """One SVG of the archive with what its metadata say, and its PNG twin."""

    key: str  # path in the archive without the suffix
    svg: Path
    png: Path
    title: str = ""
    description: str = ""
    keywords: tuple[str, ...] = ()
    author: str = ""
    licence: str = ""


# ---- reading -------------------------------------------------------------------------------------------


def read_metadata(drawing: Drawing) -> Drawing:
    """Fill in what the SVG's RDF block says about the work.

    expat fetches no external entity and stops entities that multiply (since 2.4.1), so the stock parser is
    safe here; the entities that Adobe's programs declare are needed to parse their files.
    """
    work = next((e for e in ElementTree.parse(drawing.svg).iter() if local_name(e) == "Work"), None)
    if work is None:
        return drawing
    parts = {local_name(child): child for child in work}
    subject, licence = parts.get("subject"), parts.get("license")
    keywords = [e for e in subject.iter() if local_name(e) == "li"] if subject is not None else []
    author = clean_author(text_of(parts.get("creator")))
    return replace(
        drawing,
        title=text_of(parts.get("title")),
        description=without_addresses(text_of(parts.get("description"))),
        keywords=clean_keywords(map(text_of, keywords), author),
        author=author,
        licence=next(iter(licence.attrib.values()), "") if licence is not None else "",
    )


def local_name(element: ElementTree.Element) -> str:
    """Give a tag without its namespace; "" for comments and processing instructions."""
    return element.tag.rpartition("}")[2] if isinstance(element.tag, str) else ""


def text_of(element: ElementTree.Element | None) -> str:
    """Give all text inside an element, entities resolved, white space made single."""
    text = "" if element is None else html.unescape("".join(element.itertext()))
    if "Ã" in text:  # UTF-8 that was once read as Latin-1
        with contextlib.suppress(UnicodeError):
            text = text.encode("latin-1").decode("utf-8")
    printable = "".join(" " if unicodedata.category(c).startswith("C") else c for c in text)
    return " ".join(unicodedata.normalize("NFC", printable).split())


# ---- words ---------------------------------------------------------------------------------------------

ADDRESS = re.compile(
    r"\s*[\[(<]?\s*(?:e-?mail:|mailto:)?\s*[\w.+-]+@[\w-]+(?:\.[\w-]+)+\s*[\])>]?\s*", re.IGNORECASE
)


def without_addresses(text: str) -> str:
    """Take e-mail addresses out of a text: nobody asked to be printed in a sample."""
    return " ".join(ADDRESS.sub(" ", text).split()).strip(" -,")


def clean_author(text: str) -> str:
    """Name the author without an e-mail address; who gave nothing else goes by the part before the @."""
    name = without_addresses(text) or text.removeprefix("mailto:").partition("@")[0]
    return "" if name.casefold() in {"none", "unknown", "anonymous"} else name


def clean_keywords(words: Iterable[str], author: str) -> tuple[str, ...]:
    """Keep each keyword once, without the author's name and what a broken upload script left behind."""
    kept: dict[str, str] = {}
    for word in (" ".join(word.replace("_", " ").split()) for word in words):
        noise = re.fullmatch(r"hash|(hash\()?0x[0-9a-f]+\)?|unsorted|\W*", word, re.IGNORECASE)
        if not noise and word.casefold() != author.casefold():
            kept.setdefault(word.casefold(), word)
    return tuple(kept.values())


def clean_title(title: str, author: str) -> str:
    """Turn a title as uploaded into a caption, changing no more than what is plainly not part of it.

    >>> clean_title("Clipart by Nicu Buculei - birthday_cake", "Nicu Buculei")
    'birthday cake'
    >>> clean_title("Apple Pie (B and W)", "Gerald G.")
    'Apple Pie (black and white)'
    """
    title = re.sub(r"^Clip ?art by .+? - ", "", title, flags=re.IGNORECASE)
    title = without_addresses(title)
    title = re.sub(r"\.(svg|png|jpe?g|gif)\b", "", title, flags=re.IGNORECASE)
    title = re.sub(r"(?<=[^\W_])-aj$", "", title)  # one author's initials
    title = " ".join(title.replace("_", " ").split())
    title = re.sub(r"^0\d (?=[a-z])| openclipart$| in SVG format$", "", title)
    title = re.sub(r"\s*(?:\(B (?:and|&) W\)|\bbw\b)$", " (black and white)", title, flags=re.IGNORECASE)
    if " " not in title:  # HedgeShear, redRoundButton
        title = re.sub(r"(?<=[a-z]{2})(?=[A-Z][a-z])", " ", title)
    if author:
        title = re.sub(rf"[\s,(-]*(?:\bby )?\b{re.escape(author)}\)?$", "", title, flags=re.IGNORECASE)
    return title.strip(" -,")


SERIAL = re.compile(
    r"^(?P<stem>.*[^\W\d_]{2})"
    r"(?P<number> ?#\d+| \d{1,2}| 0\d+|(?<=[A-Za-z]{2}[a-z])\d{1,3})"
    r"(?P<tail> \(black and white\))?$"
)


def without_serials(titles: list[str]) -> list[str]:
    """Drop the number of a title that only counts a series: "Tigre01", "flower2", "horse#2".

    A number after a space may mean something ("Route 66"), so it goes only where it starts with a zero or
    where another title differs from this one by that number alone.
    """
    matches = [SERIAL.match(title) for title in titles]
    stems = [
        f"{m['stem']}{m['tail'] or ''}" if m else title for m, title in zip(matches, titles, strict=True)
    ]
    variants: dict[str, set[str]] = defaultdict(set)
    for title, stem in zip(titles, stems, strict=True):
        variants[stem.casefold()].add(title.casefold())
    return [
        stem
        if m and (not re.match(" [1-9]| 0$", m["number"]) or len(variants[stem.casefold()]) > 1)
        else title
        for m, stem, title in zip(matches, stems, titles, strict=True)
    ]


def is_caption(title: str) -> bool:
    """Whether a title says anything: it has a word, and that is not "untitled"."""
    has_word = re.search(r"[^\W\d_]\w|\d[^\W\d_]", title)
    return has_word is not None and title.casefold() not in {"untitled", "unnamed"}
