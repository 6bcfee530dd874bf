"""What sentence-transformers writes beside a text model: limit in tokens, pooling, further modules."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossmodal.errors import EncoderError

_OLD_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
"""The switches that older versions wrote, one for each pooling."""

_HARMLESS = ("Transformer", "Pooling", "Normalize")


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceSettings:
    """Its settings, each None or empty where it says nothing; ``transformer`` is the folder of the model."""

    limit: int | None = None
    lower_case: bool = False
    pool: str | None = None
    left_out: tuple[str, ...] = ()
    transformer: Path | None = None


def read_sentence_settings(folder: Path) -> SentenceSettings:
    """Read a folder's ``modules.json`` and what its modules say; empty settings where there is none.

    :raises EncoderError: when one of these files is torn.
    """
    if not (folder / "modules.json").is_file():
        return SentenceSettings()
    listed = _read(folder / "modules.json")
    try:
        modules = [(module["type"].rpartition(".")[2], folder / module["path"]) for module in listed]
    except (TypeError, KeyError, AttributeError) as error:
        raise EncoderError(
            f"{folder / 'modules.json'} does not list modules; fetch the model again"
        ) from error
    homes = dict(modules)
    transformer = homes.get("Transformer", folder)
    told: dict[str, Any] = {}
    for path in sorted(transformer.glob("sentence_*_config.json")):
        told |= _read(path)
    pooling = homes.get("Pooling")
    return SentenceSettings(
        limit=told.get("max_seq_length"),
        lower_case=bool(told.get("do_lower_case")),
        pool=_pooling(_read(pooling / "config.json")) if pooling else None,
        left_out=tuple(name for name, _ in modules if name not in _HARMLESS),
        transformer=transformer,
    )


def _pooling(config: dict[str, Any]) -> str:
    """Name the pooling; several at once are joined by plus signs."""
    modes = config.get("pooling_mode") or [name for old, name in _OLD_POOLING.items() if config.get(old)]
    return modes if isinstance(modes, str) else "+".join(modes) or "mean"


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path} cannot be read ({error}); fetch the model again") from error
