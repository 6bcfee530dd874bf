"""What a person writes: ``IMAGE+TEXT?dim=512&head=mlp``, taken apart and written again."""

from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import parse_qsl, urlencode

from crossmodal.encoders.towers.settings import HEADS, IMAGE_POOLS, TEXT_POOLS
from crossmodal.errors import EncoderError, unknown

_SHAPE = "towers:IMAGE+TEXT, such as towers:efficientnet_lite0+minilm?dim=512&head=mlp"
_CHOICES = {"head": HEADS, "image_pool": IMAGE_POOLS, "text_pool": TEXT_POOLS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may stand after the question mark. None: what the model's own files say."""

    dim: int = 512
    head: str = "mlp"
    image_pool: str = "native"
    text_pool: str | None = None
    seed: int = 0
    image_size: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A spec taken apart: how the image model and the text model are called, and the options."""

    image: str
    text: str
    options: Options

    def __str__(self) -> str:
        """Write it again, files and folders by absolute paths, options only where they say something."""
        given = {
            field.name: getattr(self.options, field.name)
            for field in fields(Options)
            if getattr(self.options, field.name) != field.default
        }
        name, slash, place = self.image.partition(":" if ":" in self.image.partition("/")[0] else "/")
        local = slash == "/" or name == "local-dir"
        image = f"{name}{slash}{_absolute(place)}" if local and place else self.image
        text = _absolute(self.text) if Path(self.text).expanduser().is_dir() else self.text
        return f"towers:{image}+{text}" + (f"?{urlencode(given)}" if given else "")


def parse_spec(rest: str) -> Spec:
    """Take apart what follows ``towers:``.

    A plus sign may stand in paths as well: of all, the one counts before which a file is named that exists,
    else the first.

    :raises EncoderError: when a part is missing, or an option is unknown or out of range.
    """
    names, _, query = rest.partition("?")
    pieces = names.split("+")
    splits = [("+".join(pieces[:i]), "+".join(pieces[i:])) for i in range(1, len(pieces))]
    named = [(image, text) for image, text in splits if Path(image.partition("/")[2]).expanduser().is_file()]
    for image, text in (*named, *splits):
        if image and text:
            return Spec(image=image, text=text, options=_options(query))
    raise EncoderError(f"'towers:{rest}' does not name an image model and a text model; write {_SHAPE}")


def _options(query: str) -> Options:
    known = {field.name: field.type for field in fields(Options)}
    given: dict[str, str | int] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name not in known:
            raise EncoderError(unknown("option of towers", name, known))
        if name in _CHOICES:
            if value not in _CHOICES[name]:
                raise EncoderError(unknown(name, value, _CHOICES[name]))
            given[name] = value
        else:
            given[name] = _number(name, value)
    return Options(**given)  # type: ignore[arg-type]  # each was checked by its name


def _number(name: str, value: str) -> int:
    least = 0 if name == "seed" else 1
    if not value.isascii() or not value.isdigit() or int(value) < least:
        raise EncoderError(f"Option {name}={value!r} of towers must be a whole number from {least}")
    return int(value)


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().absolute())
