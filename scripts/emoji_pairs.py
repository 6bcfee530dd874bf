"""Emoji as pairs of a picture and words: what `train_lite.py` adds to the sample's drawings.

Two npm packages carry them: Google's Noto Emoji pictures (Apache 2.0) with their Unicode names in
emoji-datasource-google (MIT), and keywords in emojilib (MIT). They are fetched with ``npm pack`` and checked.
"""

import hashlib
import json
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

PICTURES, WORDS = "emoji-datasource-google-16.0.0.tgz", "emojilib-4.0.3.tgz"
SHA256 = {
    PICTURES: "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    WORDS: "7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303",
}
FOLDER = "package/img/google/64/"
LEFT_OUT = {"alphanum", "skin-tone", "time", "keycap"}
"""Subcategories that name no thing one could search for: boxed letters, shades, the hours of a clock."""


@dataclass(frozen=True, slots=True)
class Emoji:
    """One emoji: the bytes of its PNG, its name, and words that people find it by."""

    key: str
    png: bytes
    name: str
    keywords: tuple[str, ...]
    country: str = ""  # of a flag


def read_emoji(folder: Path) -> list[Emoji]:
    """Give all emoji that show a thing, from the packages kept in ``folder``, which are fetched once."""
    for name, sha256 in SHA256.items():
        fetch(folder / name, sha256)
    with tarfile.open(folder / WORDS) as words:
        keywords = json.load(member(words, "package/dist/emoji-en-US.json"))
    with tarfile.open(folder / PICTURES) as pictures:
        facts = json.load(member(pictures, "package/emoji.json"))
        pngs = {
            entry.name.removeprefix(FOLDER): member(pictures, entry.name).read()
            for entry in pictures
            if entry.isfile() and entry.name.startswith(FOLDER)
        }
    return [
        emoji(fact, pngs[fact["image"]], keywords)
        for fact in facts
        if fact["has_img_google"] and fact["subcategory"] not in LEFT_OUT and "obsoleted_by" not in fact
    ]


def emoji(fact: dict[str, Any], png: bytes, keywords: dict[str, list[str]]) -> Emoji:
    """Put one emoji together. The first of its keywords is its name once more."""
    characters = "".join(chr(int(code, 16)) for code in fact["unified"].split("-"))
    words = keywords.get(characters) or keywords.get(characters.replace("\ufe0f", "")) or [""]
    known = [word.replace("_", " ") for word in words[1:] if word.isascii() and len(word) > 2]
    name = fact["name"].lower().replace(" flag", "") if is_flag(fact) else words[0].replace("_", " ")
    return Emoji(
        key=fact["image"],
        png=png,
        name=f"flag of {name}" if is_flag(fact) else name or fact["name"].lower(),
        keywords=tuple(known[:12]),
        country=name if is_flag(fact) else "",
    )


def is_flag(fact: dict[str, Any]) -> bool:
    """Tell whether an emoji is the flag of a country or a part of one."""
    return fact["subcategory"] in {"country-flag", "subdivision-flag"}


def fetch(path: Path, sha256: str) -> None:
    """Fetch one npm package unless it is there, and check it."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        name, _, version = path.name.removesuffix(".tgz").rpartition("-")
        subprocess.run(["npm", "pack", "--silent", f"{name}@{version}"], cwd=path.parent, check=True)
    with path.open("rb") as file:
        seen = hashlib.file_digest(file, "sha256").hexdigest()
    if seen != sha256:
        raise SystemExit(f"{path} has sha256 {seen}, expected {sha256}. Delete it and run again.")


def member(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    """Open one file of an archive."""
    file = archive.extractfile(name)
    if file is None:
        raise SystemExit(f"{archive.name!r} holds no file {name}.")
    return file
