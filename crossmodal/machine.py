"""What this machine offers: processors to keep busy, and a place for what can be made again."""

import math
import os
from pathlib import Path


def usable_processors() -> int:
    """Give the number of processors this process may keep busy: affinity and container quota heeded."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(count, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no control groups here, or "max": no quota
        return count


def cache_root() -> Path:
    """Give the folder of all that can be made again: ``CROSSMODAL_CACHE``, or the user's cache folder."""
    chosen = os.environ.get("CROSSMODAL_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return platformdirs.user_cache_path("crossmodal", appauthor=False)
