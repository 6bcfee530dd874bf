"""WebDataset shards: tar files whose members belong together by their name up to its first dot.

A damaged shard gives what it holds and tells where it ends; the library ``webdataset`` takes some cut shards
for finished ones, and needs torch. Members are never unpickled.
"""

import glob
import os
import re
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from crossmodal.errors import SourceError
from crossmodal.images import IMAGE_SUFFIXES
from crossmodal.sources.base import Skip, Source, absolute, exists, first_line, no_such_path, unique_keys
from crossmodal.sources.columns import CAPTION_COLUMNS, captions_from, metadata_value
from crossmodal.sources.jsonlines import parse_object
from crossmodal.sources.tars import DAMAGE, TAR_SUFFIXES, Tar, is_tar
from crossmodal.sources.text import decode_utf8
from crossmodal.types import MetadataValue, Record

NUMBERS = frozenset({"cls", "cls2", "class", "count", "index", "inx", "id"})
"""Members that hold one number, as WebDataset reads them."""

TEXTS = ("txt", "text", "caption")
LARGEST_MEMBER = 2**28
MOST_SHARDS = 10**5
_NAME = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")
_INTERNAL = re.compile(r"__[^/]*__($|/)")


def is_pattern(spec: str) -> bool:
    """Say whether a path stands for several: ``{000..009}``, ``*``, ``?`` or ``[...]``."""
    return any(mark in spec for mark in "{*?[")


def open_shards(spec: str) -> Source:
    """Open one tar file, or all that a pattern stands for.

    :raises SourceError: when the pattern is malformed, matches nothing, or names shards that do not exist.
    """
    shards = [path for name in _expand(spec) for path in _matches(name)]
    missing = [path for path in shards if not path.is_file()]
    if len(shards) == len(missing) == 1:
        raise no_such_path(missing[0], "shard")
    if missing:
        names = ", ".join(str(path) for path in missing[:10]) + (" and more" if len(missing) > 10 else "")
        raise SourceError(f"{spec}: {len(missing)} of {len(shards)} shards are missing: {names}")
    if not shards:
        raise SourceError(f"{spec}: no file matches this pattern")
    if others := [path for path in shards if not is_tar(path)]:
        raise SourceError(
            f"{spec}: a pattern stands for tar files ({', '.join(TAR_SUFFIXES)}), not {others[0]}"
        )
    return ShardSource(os.fspath(absolute(spec)), list(dict.fromkeys(shards)))


def _expand(spec: str) -> list[str]:
    if "{" not in spec or exists(spec):
        return [spec]
    import braceexpand

    try:
        names = list(islice(braceexpand.braceexpand(spec), MOST_SHARDS + 1))
    except ValueError:
        raise SourceError(
            f"{spec}: its braces do not match. Write for instance 'shards/{{000..009}}.tar'"
        ) from None
    if len(names) > MOST_SHARDS:
        raise SourceError(f"{spec} stands for more than {MOST_SHARDS} shards")
    return names


def _matches(name: str) -> list[Path]:
    """Give the files a name stands for; without wild cards that is itself, whether it exists or not."""
    path = absolute(name)
    if exists(path) or not any(mark in name for mark in "*?["):
        return [path]
    return [Path(match) for match in sorted(glob.glob(os.fspath(path), recursive=True))]  # noqa: PTH207


@dataclass(slots=True)
class _Sample:
    """The members of one sample that are of use, by their suffix in lower case.

    ``unread`` says which member beside the picture cannot be read, and why.
    """

    key: str
    names: dict[str, str] = field(default_factory=dict)
    contents: dict[str, bytes] = field(default_factory=dict)
    unread: str = ""


class ShardSource(Source):
    """The samples of some shards, in their order.

    A sample's picture is its ``jpg``, ``png``, ``webp``, ... member. Its captions are its ``txt``, which is
    one, and those in its ``json``, whose other fields are metadata. Its key is the name that its members
    share, up to the first dot.
    """

    def __init__(self, spec: str, shards: list[Path]) -> None:
        super().__init__(spec)
        self.shards = shards

    def _records(self, skip: Skip) -> Iterator[Record]:
        return unique_keys(self._all(skip), skip)

    def _all(self, skip: Skip) -> Iterator[Record]:
        any_record = False
        reasons: list[str] = []

        def tell(key: str, reason: str, *, hides: bool = False) -> None:
            if not any_record and not reasons:
                reasons.append(f"{key}: {reason}")
            skip(key, reason, hides=hides)

        for shard in self.shards:
            for sample in _samples(shard, tell):
                record = _record(shard, sample, tell)
                if record is not None:
                    any_record = True
                    yield record
        if not any_record:
            why = "".join(f". {reason}" for reason in reasons)
            raise SourceError(
                f"{self.spec}: no sample with a picture that can be used in {len(self.shards)} shards{why}"
            )


def _samples(shard: Path, skip: Skip) -> Iterator[_Sample]:
    """Yield the samples of one shard; what is left unread of a damaged one is told."""
    sample: _Sample | None = None
    before: Collection[str] = ()
    try:
        with Tar.open(shard) as tar:
            for member in tar.each():
                key, suffix = _key_and_suffix(member.name)
                if not key:
                    continue
                if sample is None or sample.key != key:
                    if sample is not None:
                        yield sample
                        before = sample.names
                    sample = _Sample(key)
                _take(tar, member, suffix, sample, skip)
            if note := tar.look_at_end():
                skip(os.fspath(shard), note, hides=True)
    except DAMAGE as error:
        reason = f"damaged or cut off, the rest is not read: {first_line(error)}"
        skip(os.fspath(shard), reason, hides=True)
        if sample is not None and not _looks_whole(sample, before):
            skip(sample.key, "its shard is damaged or cut off within this sample")
            return
    if sample is not None:
        yield sample


def _looks_whole(sample: _Sample, before: Collection[str]) -> bool:
    """Say whether the last sample of a damaged shard has what the one before it had, or else two members."""
    return set(before) <= sample.names.keys() if before else len(sample.names) > 1


def _key_and_suffix(name: str) -> tuple[str, str]:
    """Split a member's name as WebDataset does: the key up to the file name's first dot, and the rest."""
    match = _NAME.match(name)
    if match is None or _INTERNAL.match(name):
        return "", ""
    return match[1].removeprefix("./"), match[2].lower()


def _take(tar: Tar, member: tarfile.TarInfo, suffix: str, sample: _Sample, skip: Skip) -> None:
    """Read one member into its sample, if it is of use."""
    if not (_is_picture(suffix) or suffix in (*TEXTS, "json", *NUMBERS)):
        return
    if suffix in sample.names:
        skip(member.name, f"a second .{suffix} in its sample")
    elif member.size > LARGEST_MEMBER:
        reason = f"too large: {member.size} bytes, at most {LARGEST_MEMBER} are read"
        if _is_picture(suffix):
            skip(member.name, reason)
        else:
            sample.unread = f"{member.name}: {reason}"
    elif (file := tar.extractfile(member)) is not None:
        sample.contents[suffix] = file.read()  # first, for what cannot be read must not be counted
        sample.names[suffix] = member.name


def _record(shard: Path, sample: _Sample, skip: Skip) -> Record | None:
    """Make a record of a sample, or tell why there is none.

    Where a member beside the picture cannot be read there is none: without its captions it would look as if
    they had been taken away.
    """
    pictures = [suffix for suffix in sample.names if _is_picture(suffix)]
    plain = [suffix for suffix in pictures if "." not in suffix]
    if not pictures:
        skip(sample.key, f"no picture in its sample, only {', '.join(sample.names) or 'other members'}")
        return None
    if not plain:
        for suffix in pictures[1:]:
            skip(
                sample.names[suffix], "a second picture in its sample: what follows the first dot is no name"
            )
    picture = (plain or pictures)[0]
    try:
        sample.names[picture].encode()
    except UnicodeEncodeError:
        skip(sample.key, "its name is not UTF-8")
        return None
    try:
        captions, metadata = _captions_and_metadata(sample)
    except ValueError as error:
        skip(sample.key, f"captions or metadata not read: {error}")
        return None
    return Record(
        key=sample.key,
        image=sample.contents[picture],
        captions=captions,
        metadata=metadata,
        uri=f"{shard}#{sample.names[picture]}",
    )


def _captions_and_metadata(sample: _Sample) -> tuple[tuple[str, ...], dict[str, MetadataValue]]:
    """Give what the members beside the picture say.

    :raises ValueError: when one cannot be read, with its name and the reason.
    """
    if sample.unread:
        raise ValueError(sample.unread)
    captions: list[str] = []
    metadata: dict[str, MetadataValue] = {}
    for suffix, content in sample.contents.items():
        if _is_picture(suffix):
            continue
        try:
            text = decode_utf8(content).strip()
        except ValueError as error:
            raise ValueError(f"{sample.names[suffix]}: {error}") from None
        if suffix in TEXTS:
            captions += [text] if text else []
        elif suffix == "json":
            fields = parse_object(text)
            if isinstance(fields, str):
                raise ValueError(f"{sample.names[suffix]}: {fields}")
            caption = next((name for name in CAPTION_COLUMNS if name in fields), None)
            captions += captions_from(fields.pop(caption)) if caption else ()
            metadata.update((name, metadata_value(value)) for name, value in fields.items())
        else:
            metadata[suffix] = int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text
    # The same caption often stands in the text and in the JSON.
    return tuple(dict.fromkeys(captions)), metadata


def _is_picture(suffix: str) -> bool:
    return f".{suffix.rpartition('.')[2]}" in IMAGE_SUFFIXES
