"""The facts of a collection in words, for the terminal and for the page."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crossmodal.collection import CollectionInfo

SOURCES_SHOWN = 5


def facts(info: "CollectionInfo") -> dict[str, str]:
    """Give each fact under its name, in the order in which people ask for them."""
    encoder, index = info.encoder, info.index
    size_of_vectors, size_of_pictures = encoder["dim"], encoder["image_size"]
    told = {
        "path": info.path,
        "records": f"{info.records:,}",
        "captions": f"{info.captions:,}",
        "sources": _sources(info.sources),
        "encoder": f"{encoder['name']}, {size_of_vectors} dimensions, pictures at {size_of_pictures} pixels",
        "vectors": _vectors(info),
        "fingerprint": _short(str(encoder["fingerprint"])),
        "made with": f"{encoder['backend']}, {encoder['dtype']}",
        "index": f"{index['kind']} over {index['rows']:,} pictures, on {_place(index['device'])}",
        "columns": ", ".join(f"{name} ({kind})" for name, kind in info.columns.items()),
        "on disk": size(info.bytes_on_disk),
        "version": str(info.version),
    }
    return {name: value for name, value in told.items() if value}


def size(count: int) -> str:
    """Give a number of bytes in the unit people read best.

    >>> size(12_345_678)
    '12.3 MB'
    """
    value = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def _vectors(info: "CollectionInfo") -> str:
    """Say what the vectors are kept as and how large each is; bits lie beside what scores the best again."""
    told = f"{info.storage}, {info.encoder['dim']} dimensions, "
    searched = info.index["bytes_per_vector"]
    if info.storage == "binary":
        return f"{told}{searched:,} bytes each to search and {info.bytes_per_vector:,} to score again"
    return f"{told}{info.bytes_per_vector:,} bytes each"


def _short(fingerprint: str) -> str:
    """Cut a fingerprint to what tells two apart; how long a prefix of the vectors is stays behind it."""
    whole, plus, dim = fingerprint.partition("+")
    return whole[:16] + plus + dim


def _sources(sources: dict[str, int]) -> str:
    named = [f"{name or 'records added one by one'} ({count:,})" for name, count in sources.items()]
    more = len(named) - SOURCES_SHOWN
    return ", ".join([*named[:SOURCES_SHOWN], *([f"and {more} more"] if more > 0 else [])])


def _place(device: object) -> str:
    return "the CPU" if device == "cpu" else str(device)
