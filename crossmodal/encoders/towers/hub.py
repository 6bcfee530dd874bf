"""What lies on the Hugging Face hub, or in its cache on this machine."""

from pathlib import Path

from crossmodal.errors import EncoderError

LOCAL = "towers:efficientnet_lite0+minilm needs no network, nor does a folder or file in place of the name"


def fetch(repository: str, patterns: list[str]) -> Path:
    """Give the local folder of a repository, ``owner/name`` or ``owner/name@revision``, fetched if need be.

    :param patterns: which of its files are wanted.
    :raises EncoderError: when it is neither cached nor to be had over the network.
    """
    from huggingface_hub import snapshot_download

    name, _, revision = repository.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
    except (
        OSError,
        ValueError,
    ) as error:  # what the hub raises are OSErrors, also for names it does not know
        reason = " ".join(str(error).split()) or type(error).__name__
        raise EncoderError(
            f"{repository!r} has to come from the Hugging Face hub over the network, which failed "
            f"({reason:.120}); {LOCAL}"
        ) from error
