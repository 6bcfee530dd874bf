"""Transformers at work without its progress bars and notices."""

import contextlib
import threading
from collections.abc import Iterator

_ALONE = threading.RLock()
"""Held meanwhile: what is switched off here is switched off for the whole process, and while transformers
loads a model it exchanges functions of torch."""


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Switch off bars and notices, one thread at a time, and leave them as they were."""
    from transformers.utils import logging

    with _ALONE:
        level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(level)
            if bars:
                logging.enable_progress_bar()
