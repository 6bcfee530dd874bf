"""Emoji as pairs of a picture and words, for `train_lite.py`: one emoji, as several designers drew it.

npm carries them: Google's Noto Emoji as they are and as they were before 2017 (Apache 2.0), Twitter's Twemoji
(CC BY 4.0, Copyright Twitter, Inc and other contributors), Microsoft's Fluent Emoji in three styles (MIT),
EmojiTwo, which was Emoji One, in two (CC BY 4.0), and Streamline's (CC BY 4.0). Their Unicode names are in
emoji-datasource-* (MIT), keywords in emojilib (MIT).
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lite_packages import Package, contents, draw_svg, icons

NOTO = Package(
    "emoji-datasource-google@16.0.0",
    "fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",
    "package/img/google/64/",
)
TWEMOJI = Package(
    "emoji-datasource-twitter@16.0.0",
    "f64a530c63bca463bd8317fdc4615ce63a53a0c65018e4ce2d848aaba7a28877",
    "package/img/twitter/64/",
)
FLUENT = Package(
    "@lobehub/fluent-emoji-3d@1.1.0",
    "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
    "package/assets/",
)
WORDS = Package("emojilib@4.0.3", "7f9a6b43cff31d18985b7d65d11faba5bd971cbcc60020cf6d09322fbaaaf303")
NAMED_SETS = (
    Package(
        "@iconify-json/fluent-emoji-flat@1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
    ),
    Package(
        "@iconify-json/fluent-emoji-high-contrast@1.2.6",
        "0b92d48c90d2200bd499e3cdd09a127ca6a8c8ddefd34c35eb5a1e4994012ae0",
    ),
    Package(
        "@iconify-json/noto-v1@1.2.5", "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37"
    ),
    Package(
        "@iconify-json/emojione@1.2.3", "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e"
    ),
    Package(
        "@iconify-json/emojione-monotone@1.2.1",
        "40b90004bafb406b59266155ef9b7e1dd67bf2947fc8db8d07388776f4d0d04e",
    ),
    Package(
        "@iconify-json/streamline-emojis@1.2.4",
        "5dac87c876b322500989828c5823143e0100d78881627a2e4081a4b897cbfdbc",
    ),
)
"""Sets whose pictures go by the emoji's name; the others go by its code points."""

LEFT_OUT = {"alphanum", "skin-tone", "time", "keycap"}
"""Subcategories that name no thing one could search for: boxed letters, shades, the hours of a clock."""
FLAGS = {"country-flag", "subdivision-flag"}


@dataclass(frozen=True, slots=True)
class Emoji:
    """One emoji: its pictures' files, its name, words that people find it by, and of a flag the country."""

    pictures: tuple[bytes, ...]
    name: str
    keywords: tuple[str, ...]
    country: str = ""


def read_emoji(folder: Path) -> list[Emoji]:
    """Give all emoji that show a thing, from the packages kept in ``folder``."""
    words: dict[str, list[str]] = json.loads(contents(folder, WORDS)["package/dist/emoji-en-US.json"])
    noto = contents(folder, NOTO)
    drawn = [drawings(noto, NOTO)]
    drawn += [drawings(contents(folder, package), package) for package in (TWEMOJI, FLUENT)]
    named = [{slug(name): svg for name, svg in icons(folder, package).items()} for package in NAMED_SETS]
    emoji = []
    for fact in json.loads(noto["package/emoji.json"]):
        if not fact["has_img_google"] or fact["subcategory"] in LEFT_OUT or "obsoleted_by" in fact:
            continue
        key = Path(fact["image"]).stem
        one = describe(fact, words)
        names = {slug(one.name), slug(fact["name"]), slug(fact["short_name"])}
        pictures = [files[key] for files in drawn if key in files]
        for files in named:
            pictures += [draw_svg(files[name]) for name in sorted(names & files.keys())[:1]]
        emoji.append(Emoji(tuple(pictures), one.name, one.keywords, one.country))
    return emoji


def drawings(files: dict[str, bytes], package: Package) -> dict[str, bytes]:
    """Give a package's pictures by the code points they draw."""
    return {Path(name).stem: file for name, file in files.items() if name.startswith(package.pictures)}


def slug(name: str) -> str:
    """Bring a name to one form: ``Flag for Belgium``, ``flag-belgium`` and ``belgium-flag`` are one."""
    words = re.findall(r"[a-z]+", name.lower().replace("\u2019", "").replace("'", ""))
    return "-".join(sorted(word for word in words if word not in {"for", "of", "the", "and"}))


def describe(fact: dict[str, Any], words: dict[str, list[str]]) -> Emoji:
    """Put one emoji together, without its pictures. The first of its keywords is its name."""
    characters = "".join(chr(int(code, 16)) for code in fact["unified"].split("-"))
    known = words.get(characters) or words.get(characters.replace("\ufe0f", "")) or [""]
    name, *others = [word.replace("_", " ") for word in known]
    keywords = tuple(word for word in others if word.isascii() and len(word) > 2)[:12]
    unicode_name = fact["name"].lower()
    if fact["subcategory"] in FLAGS:
        country = unicode_name.replace(" flag", "")
        return Emoji((), f"flag of {country}", keywords, country)
    return Emoji((), name or unicode_name, keywords)
