"""Files of weights: told apart by what they hold, and never run as code."""

import hashlib
import json
import os
import pickle
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossmodal.errors import EncoderError, first_few
from crossmodal.machine import cache_root

if TYPE_CHECKING:
    from torch import Tensor, nn

_KNOWN = "digests.json"
_HEADER_LIMIT = 100_000_000


def file_digest(path: Path) -> str:
    """Give the sha256 of a file. What was read once is remembered until the file changes."""
    status = path.stat()
    times = f"{status.st_mtime_ns}:{status.st_ctime_ns}"  # a copy may set the first of them back
    stamp = f"{path.resolve()}:{status.st_size}:{times}:{status.st_ino}"
    known = _read_known()
    if stamp not in known:
        with path.open("rb") as file:
            known[stamp] = hashlib.file_digest(file, "sha256").hexdigest()
        _write_known(known)
    return known[stamp]


def load_weights(model: "nn.Module", path: Path, *, strip: Iterable[str] = ()) -> None:
    """Fill a model with the weights of a file, brought to the model's own dtype: every tensor, and no other.

    :param path: safetensors, or what ``torch.save`` wrote of tensors alone.
    :param strip: beginnings that are taken off the names, each where all names have it, such as ``module.``.
    :raises EncoderError: when the file cannot be read, would run code, or does not fit; it names the first
        tensors that are missing, unexpected or of another shape.
    """
    fill(model, read_weights(path, strip=strip), path)


def fill(model: "nn.Module", state: "dict[str, Tensor]", origin: Path) -> None:
    """Fill a model with tensors by their names; tensors that share memory may come under one of their names.

    :raises EncoderError: when they do not fit the model; ``origin`` is named as where they came from.
    """
    own = model.state_dict()
    given = {_place(own[name]) for name in state if name in own}
    missing = [name for name, tensor in own.items() if name not in state and _place(tensor) not in given]
    unexpected = [name for name in state if name not in own]
    reshaped = [
        f"{name} {tuple(tensor.shape)} instead of {tuple(own[name].shape)}"
        for name, tensor in state.items()
        if name in own and tensor.shape != own[name].shape
    ]
    if missing or unexpected or reshaped:
        raise unfit(origin, missing=missing, unexpected=unexpected, reshaped=reshaped)
    model.load_state_dict(state, strict=False)


def unfit(
    origin: object, *, missing: Sequence[str], unexpected: Sequence[str] = (), reshaped: Sequence[str]
) -> EncoderError:
    """Give the error for weights that do not fit: how many in which way, the first of each by name."""
    listed = {"missing": missing, "unexpected": unexpected, "of another shape": reshaped}
    wrong = [f"{len(names)} {how} ({first_few(names)})" for how, names in listed.items() if names]
    return EncoderError(
        f"{origin}: its weights do not fit its configuration: {'; '.join(wrong)}. "
        "Take the weights that were made for this architecture"
    )


def read_weights(path: Path, *, strip: Iterable[str] = ()) -> "dict[str, Tensor]":
    """Read the tensors of a file onto the CPU, by their names; what training wrapped them in is taken off.

    :param strip: as for ``load_weights``.
    :raises EncoderError: when the file cannot be read, or reading it would run code.
    """
    if is_safetensors(path):
        from safetensors.torch import load_file

        state = load_file(path)
    else:
        state = _read_pickled_tensors(path)
    for prefix in strip:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def is_safetensors(path: Path) -> bool:
    """Tell safetensors from what torch writes, by name or first bytes, and check that the file is whole.

    :raises EncoderError: when the file cannot be read, or is safetensors that is torn.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise EncoderError(
            f"Weights {path} cannot be read ({error.strerror or error}); check the path"
        ) from error
    if path.suffix == ".safetensors" or (start[8:] == b"{" and not start.startswith((b"PK", b"\x80"))):
        check_safetensors(path)
        return True
    return False


def check_safetensors(path: Path) -> None:
    """Check that a file of safetensors has a header and the length that its header tells, without loading it.

    :raises EncoderError: when it is missing, torn or something else.
    """
    try:
        length = path.stat().st_size
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header: dict[str, Any] = json.loads(file.read(size) if size <= _HEADER_LIMIT else b"")
        header.pop("__metadata__", None)
        told = 8 + size + max((tensor["data_offsets"][1] for tensor in header.values()), default=0)
    except OSError as error:
        raise EncoderError(
            f"Weights {path} cannot be read ({error.strerror or error}); check the path"
        ) from error
    except (ValueError, AttributeError, KeyError, IndexError, TypeError) as error:
        raise EncoderError(f"{path} is no safetensors file: its header is torn; fetch it again") from error
    if length != told:
        raise EncoderError(f"{path} is torn: {length} bytes, its header tells of {told}; fetch it again")


def _read_pickled_tensors(path: Path) -> "dict[str, Tensor]":
    """Read a state dict that ``torch.save`` wrote, by itself or in the wrapping of a training checkpoint."""
    from torch import Tensor

    loaded = _unpickle(path)
    for wrapping in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapping), dict):
            loaded = loaded[wrapping]
    state: dict[str, Tensor] = loaded if isinstance(loaded, dict) else {}
    if not state or not all(isinstance(each, Tensor) for each in state.values()):
        raise EncoderError(f"{path} holds no tensors by their names; expected the state dict of a model")
    return state


def _unpickle(path: Path) -> Any:
    """Read what ``torch.save`` wrote: tensors and plain containers only."""
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a TorchScript archive, which is refused below
            return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "TorchScript" not in str(error):
            raise EncoderError(f"{path} is torn or no file of weights; fetch it again") from error
        raise EncoderError(
            f"{path} holds more than tensors and would run code when read, which is refused; "
            "save its state dict as safetensors"
        ) from error
    except Exception as error:  # what is no pickle makes torch's reader stumble in many ways
        raise EncoderError(f"{path} is torn or no file of weights; fetch it again") from error


def _place(tensor: "Tensor") -> tuple[object, ...]:
    """Say which memory a tensor lies in, to tell those that share it."""
    return (tensor.device, tensor.data_ptr(), tensor.numel()) if tensor.data_ptr() else (id(tensor),)


def _read_known() -> dict[str, str]:
    try:
        known = json.loads((cache_root() / _KNOWN).read_bytes())
    except (OSError, ValueError):  # not there, or torn
        return {}
    return known if isinstance(known, dict) else {}


def _write_known(known: dict[str, str]) -> None:
    """Replace the list at once; a disk that refuses costs reading the file again next time."""
    try:
        cache_root().mkdir(parents=True, exist_ok=True)
        new = cache_root() / f"{_KNOWN}.{os.getpid()}"
        new.write_text(json.dumps(known))
        new.replace(cache_root() / _KNOWN)
    except OSError:
        return
