"""A folder of results: there as a whole or not at all, never in place of something else."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..files import publish

__all__ = ["staged"]

RECORDS = ("run.json", "results.json", "trials.json")  # where a folder says what has made it


@contextmanager
def staged(folder: str | os.PathLike[str], *, by: str) -> Iterator[Path]:
    """A folder to fill: it becomes `folder`, as a whole, when the block ends without an error.

    Args:
        folder: The final folder. Results of an earlier run of the same command are replaced, with
            everything in their folder; any other folder must be empty.
        by: The command that fills it, as its record names it.
    Raises:
        OSError: It cannot be written, or holds something else.
    """
    folder = Path(os.path.realpath(folder))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise PermissionError(13, "read-only, or not a folder")
        _check_free(folder, by)
        room = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise OSError(
            f"cannot write results to {folder}: {error.strerror}; choose another folder with --out"
        ) from error
    try:
        stage = room / "results"
        stage.mkdir()
        yield stage
        _check_free(folder, by)  # much may have happened meanwhile
        publish(stage, folder, room / "replaced")
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _check_free(folder: Path, by: str) -> None:
    """Raise a `FileExistsError` unless a folder is new, empty, or of an earlier run of a command.

    What another command has made is not taken: it may hold the very data that are read.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return
    for name in RECORDS:
        try:
            if json.loads((folder / name).read_text())["command"][:2] == ["measurand", by]:
                return
        except (OSError, ValueError, TypeError, KeyError):
            continue
    raise FileExistsError(17, f"it holds something else than results of `measurand {by}`")
