"""A folder of results: there as a whole or not at all, never in place of something else.

What may be replaced is an earlier run of the same command, and only while nothing lies beside what
that run wrote (`write_record` notes it). A folder that holds what a run reads is refused before
anything is done (`check_outside`). A folder that nobody has named is of one input:
`free` and `reserved` count on, name-2, name-3, where an earlier one is of another input.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from ..data.arrays import split_key
from ..files import publish, room, sweep
from ..leases import alone, lease

__all__ = [
    "check_outside",
    "choosing",
    "file_of",
    "foreign",
    "free",
    "named_inputs",
    "reserved",
    "staged",
]

# where a folder says what has made it
RECORDS = ("run.json", "results.json", "trials.json", "shift.json")
DESKTOP = (".DS_Store", "Thumbs.db")  # what file managers leave wherever they look


@contextmanager
def staged(
    folder: str | os.PathLike[str], *, by: str, inputs: Iterable[str | os.PathLike[str]] = ()
) -> Iterator[Path]:
    """A folder to fill: it becomes `folder`, as a whole, when the block ends without an error.

    Args:
        folder: The final folder. Results of an earlier run of the same command are replaced, if
            their folder holds nothing else; any other folder must be empty.
        by: The command that fills it, as its record names it.
        inputs: What the block reads, see `check_outside`.
    Raises:
        ValueError: It holds an input.
        OSError: It cannot be written, or holds something else.
    """
    check_outside(folder, inputs)
    folder = Path(os.path.realpath(folder))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists() and not (folder.is_dir() and os.access(folder, os.W_OK)):
            raise PermissionError(13, "read-only, or not a folder")
        sweep(folder.parent)
        _check_free(folder, by)
        stack = ExitStack()
        stage = stack.enter_context(room(folder, folder.parent, folder.name[:40]))
    except OSError as error:
        raise OSError(
            f"cannot write results to {folder}: {error.strerror}; choose another folder with --out"
        ) from error
    with stack:
        yield stage
        _check_free(folder, by)  # much may have happened meanwhile
        publish(stage, folder)


def _check_free(folder: Path, by: str) -> None:
    """Raise a `FileExistsError` unless a folder is new, empty, or of an earlier run of a command.

    What another command has made is not taken: it may hold the very data that are read.
    """
    if not folder.exists() or not any(folder.iterdir()):
        return
    record = _record(folder, by)
    if record is None:
        raise FileExistsError(17, f"it holds something else than results of `measurand {by}`")
    if others := foreign(folder, record.get("outputs", [])):
        raise FileExistsError(17, f"it holds {others[0]}, which no run of `measurand {by}` wrote")


def foreign(folder: Path, outputs: Iterable[str]) -> list[str]:
    """Return the files and links in a folder of results that its run did not write.

    Args:
        folder: The folder.
        outputs: What the run wrote, as its record names it.
    """
    found = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    names = (path.relative_to(folder).as_posix() for path in found)
    ours = {*outputs, *RECORDS}
    return sorted(name for name in names if name not in ours and Path(name).name not in DESKTOP)


def _record(folder: Path, by: str | None, names: Sequence[str] = RECORDS) -> dict[str, Any] | None:
    """What a folder says of the run of a command that has made it; None where it says nothing."""
    for name in names:
        try:
            record = json.loads((folder / name).read_text())
            if by is None or record["command"][:2] == ["measurand", by]:
                return record if isinstance(record, dict) else None
        except (OSError, ValueError, TypeError, KeyError):
            continue
    return None


def check_outside(
    folder: str | os.PathLike[str] | None,
    inputs: Iterable[str | os.PathLike[str]],
    *,
    parts: Iterable[str] | None = None,
) -> None:
    """Checks that a folder of results holds nothing that is read: it may be replaced as a whole.

    Args:
        folder: The folder; None for one that is yet to be chosen.
        inputs: Files and folders, with a key where they have one; all links on the way to one
            count too. Words that are no files are passed over.
        parts: Only these folders and files in it are replaced.
    Raises:
        ValueError: It does; the message names both.
    """
    if folder is None:
        return
    top = Path(os.path.realpath(folder))
    taken = {top} if parts is None else {top / part for part in parts}
    known: dict[Path, set[Path]] = {}
    for text in inputs:
        path = file_of(text)
        if not os.path.lexists(path):
            continue
        for place in _places(path.absolute(), known) | {Path(os.path.realpath(path))}:
            if place in taken or not taken.isdisjoint(place.parents):
                raise ValueError(
                    f"--out {folder} holds {text}, which is read and would be replaced by the "
                    "results; choose another folder with --out"
                )


def _places(path: Path, known: dict[Path, set[Path]]) -> set[Path]:
    """Every link on the way to the end of an absolute path."""
    if path not in known:
        found = known[path] = set()  # links in a circle end here
        if path != path.parent:
            found |= _places(path.parent, known)
        if path.name not in ("", ".."):
            place = Path(os.path.realpath(path.parent)) / path.name
            if place.is_symlink():
                found |= {place} | _places(place.parent / os.readlink(place), known)
    return known[path]


def file_of(text: str | os.PathLike[str]) -> Path:
    """Return the file or folder that an input names, without its key where it has one."""
    return Path(text) if os.path.lexists(text) else split_key(Path(text))[0]


def named_inputs(*inputs: str | os.PathLike[str]) -> list[str]:
    """Inputs as records name them: absolute, links followed, with the key where there is one."""
    return [
        os.path.realpath(file_of(text)) + os.fspath(text)[len(os.fspath(file_of(text))) :]
        for text in inputs
    ]


def free(
    folder: Path,
    of: Sequence[str],
    *,
    by: str | None,
    inputs: Iterable[str | os.PathLike[str]] = (),
    records: Sequence[str] = RECORDS,
) -> Path:
    """Returns a folder for the results of some inputs that replaces none of others.

    That is `folder` where there is none, or an empty one, or one of the same inputs; or else the
    first such of folder-2, folder-3 and so on.

    Args:
        folder: The first choice.
        of: The inputs, see `named_inputs`.
        by: The command, as its record names it; None for any.
        inputs: All that is read, see `check_outside`.
        records: Files in the folder that say what has made it.
    """
    inputs = list(inputs)
    return next(path for path in _numbered(folder) if _fits(path, of, by, inputs, records))


def _numbered(folder: Path) -> Iterator[Path]:
    yield folder
    for k in count(2):
        yield folder.with_name(f"{folder.name}-{k}")


def _fits(
    folder: Path,
    of: Sequence[str],
    by: str | None,
    inputs: Iterable[str | os.PathLike[str]],
    records: Sequence[str],
) -> bool:
    try:
        check_outside(folder, inputs)
        if not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir())):
            return True
    except ValueError:
        return False
    except OSError:  # whoever writes there will say so
        return True
    record = _record(folder, by, records)
    if record is None:
        return False
    if isinstance(record.get("inputs"), list):
        return record["inputs"] == list(of)
    # of a version that did not note them: they are among its words, as they were given
    words = [record.get("file"), *record.get("command", []), *record.get("data", [])]
    return set(of) <= set(named_inputs(*[word for word in words if isinstance(word, str)]))


@contextmanager
def reserved(
    folder: str | os.PathLike[str] | None,
    name: str,
    of: Sequence[str],
    *,
    by: str,
    inputs: Iterable[str | os.PathLike[str]] = (),
) -> Iterator[Path]:
    """The folder that is named, or one in `runs` that is free and stays so while the block lasts.

    Args:
        folder: The folder that is named; None where none is.
        name: The first choice in `runs`, see `free`.
        of: The inputs, see `named_inputs`.
        by: The command, as its record names it.
        inputs: All that is read, see `check_outside`.
    """
    if folder is not None:
        yield Path(folder)
        return
    inputs = list(inputs)
    for path in _numbered(Path("runs") / name):
        with ExitStack() as stack:
            try:
                ours = stack.enter_context(lease(_claim(path))) is not None
            except OSError:  # whoever writes there will say so
                ours = True
            if ours and _fits(path, of, by, inputs, RECORDS) and not _mixed(path, by):
                yield path
                return


def _mixed(folder: Path, by: str) -> bool:
    """Whether something lies in a folder beside what an earlier run of a command wrote."""
    record = _record(folder, by)
    return record is not None and bool(foreign(folder, record.get("outputs", [])))


@contextmanager
def choosing(folder: Path) -> Iterator[None]:
    """The block of one process at a time, for those that choose folders beside each other."""
    with ExitStack() as stack:
        try:
            stack.enter_context(alone(_claim(folder)))
        except TimeoutError:
            raise
        except OSError:  # whoever writes there will say so
            pass
        yield


def _claim(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lease")
