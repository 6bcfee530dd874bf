"""``accelerate launch -m training SOURCE --output DIR ...``: ``crossmodal train`` on many processes."""

import argparse
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from crossmodal.errors import CrossmodalError
from crossmodal.refusals import disk_advice
from training import Standing, Stopped, read_recipe, train

DONE, YOURS = 0, 2
QUIET_SECONDS = 10.0
"""A line of progress is written at most this often."""


def main(arguments: list[str] | None = None) -> int:
    """Train as the arguments say, and give the exit code: 0 done, 2 what the user can mend, 128 + signal."""
    options = _parser().parse_args(arguments)
    if _alone_unasked(os.environ):
        _say(
            "accelerate launch --cpu starts one process only where there is no MPI; several on CPUs: "
            "ACCELERATE_USE_CPU=true torchrun --nproc-per-node 2 -m training ..."
        )
    try:
        recipe = read_recipe(options.recipe, options.set)
        outcome = train(
            options.source,
            options.output,
            recipe,
            validation=options.validation,
            resume=options.resume,
            columns={
                name: getattr(options, name) for name in ("image_column", "caption_column", "key_column")
            },
            tell=_say,
            watch=_Lines(),
        )
    except Stopped as stopped:
        _say(f"interrupted: {stopped}")
        return 128 + stopped.number
    except CrossmodalError as error:
        _say(str(error))
        return YOURS
    except OSError as error:
        if advice := disk_advice(error):
            _say(advice)
            return YOURS
        raise
    if os.environ.get("RANK", "0") == "0":
        sys.stdout.write(outcome.line() + "\n")
    return DONE


class _Lines:
    """A line now and then."""

    def __init__(self) -> None:
        self._told = time.monotonic()

    def __call__(self, standing: Standing) -> None:
        if time.monotonic() - self._told >= QUIET_SECONDS:
            self._told = time.monotonic()
            _say(f"{standing.step:,} of {standing.steps:,} steps, {standing.note}")


def _alone_unasked(environment: Mapping[str, str]) -> bool:
    """Tell whether a launcher told where processes are to meet, and then started no others."""
    counts = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
    return "MASTER_ADDR" in environment and not any(count in environment for count in counts)


def _say(line: str) -> None:
    """Write one line on stderr, from the first process alone: all meet the same errors."""
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"training: {line}\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "training", description="Train a twin encoder on pairs; see crossmodal train."
    )
    parser.add_argument("source", help="where the pairs are, as for crossmodal index")
    parser.add_argument("--output", type=Path, required=True, help="the folder of the run")
    parser.add_argument("--recipe", default="heads", help="a name, or a file of TOML")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="set one key of the recipe"
    )
    parser.add_argument("--validation", help="the source that is measured on")
    parser.add_argument("--resume", action="store_true", help="go on where the run in --output stopped")
    for name in ("--image-column", "--caption-column", "--key-column"):
        parser.add_argument(name)
    return parser


if __name__ == "__main__":
    sys.exit(main())
