"""Digests of what a run read and wrote, and whether the files are still those.

A record (`run.json` and its like) holds the SHA-256 of every file that its run wrote, of every
input, and of the record itself without that line. `verified` compares them all:

    outputs   {name in the folder: digest}
    digests   {path of an input: digest}; a folder has one of all names and contents in it
    sealed    digest of the rest of the record

A record changed by one who can also compute digests is not found out: this is against damage and
mistakes, not against forgery.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import sha256, sha256_file, write_atomic
from ..records import json_text
from .folders import RECORDS, file_of, foreign

__all__ = ["Verified", "digest_of_input", "seal", "verified", "write_record"]


@dataclass(frozen=True)
class Verified:
    """What became of the results of one run.

    Args:
        record: The file that says what the run wrote.
        faults: What is missing, damaged or changed.
        remarks: What cannot be compared: inputs that are elsewhere by now, files of others.
    """

    record: Path
    faults: tuple[str, ...]
    remarks: tuple[str, ...]


def digest_of_input(path: Path) -> str:
    """Return the digest of a file; of a folder that of the names and contents in it."""
    if not path.is_dir():
        return sha256_file(path)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    lines = [f"{file.relative_to(path).as_posix()} {sha256_file(file)}" for file in files]
    return sha256("\n".join(lines))


def seal(folder: Path, record: dict[str, Any], digests: dict[str, str]) -> dict[str, Any]:
    """Return a record with the digests of the files in its folder, of inputs, and of itself."""
    written = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    outputs = {file.relative_to(folder).as_posix(): sha256_file(file) for file in written}
    sealed = record | {"outputs": outputs, "digests": digests}
    return sealed | {"sealed": _digest(sealed)}


def write_record(
    path: Path, record: dict[str, Any], inputs: Iterable[str | os.PathLike[str]] = ()
) -> dict[str, Any]:
    """Write what a folder of results says of its run, once all its other files are there.

    Args:
        path: The file, one of `RECORDS`, in the folder.
        record: What it says.
        inputs: Files and folders that the run has read, with a key where they have one; words
            that are no files are passed over.
    Returns:
        The same, sealed.
    """
    read = {os.path.realpath(file_of(text)) for text in inputs}
    digests = {name: digest_of_input(Path(name)) for name in sorted(read) if os.path.exists(name)}
    record = seal(path.parent, record, digests)
    write_atomic(path, json_text(record, indent=1) + "\n")
    return record


def verified(top: Path) -> list[Verified]:
    """Compare all results in a folder, and in those below, with their digests.

    Args:
        top: The folder.
    Raises:
        ValueError: It holds no record of a run.
    """
    names = {name for name in RECORDS if (top / name).is_file()}
    records = [top / name for name in sorted(names)]
    below = (path for path in sorted(top.rglob("*.json")) if path.parent != top)
    for path in below:
        hidden = any(part.startswith(".") for part in path.relative_to(top).parts)
        if path.name in RECORDS and not hidden:
            records.append(path)
    if not records:
        raise ValueError(
            f"{top}: holds no results ({', '.join(RECORDS)}), wanted a folder that a run wrote"
        )
    return [_compared(path) for path in records]


def _compared(path: Path) -> Verified:
    try:
        record = json.loads(path.read_text())
        outputs = record["outputs"]
        rest = {key: value for key, value in record.items() if key != "sealed"}
        faults = [] if _digest(rest) == record["sealed"] else [f"{path.name}: changed"]
        digests = dict(record.get("digests", {}))
        known = dict(outputs)
    except KeyError:
        return Verified(path, (), ("made by a version without digests: nothing to compare",))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        return Verified(path, (f"{path.name}: cannot be read ({error})",), ())
    folder = path.parent
    for name, digest in known.items():
        faults += _fault(folder / name, name, digest)
    remarks = [f"{name}: not of this run" for name in foreign(folder, known)]
    for name, digest in digests.items():
        if Path(name).exists():
            faults += _fault(Path(name), f"input {name}", digest)
        else:
            remarks.append(f"input {name}: not there any more")
    return Verified(path, tuple(faults), tuple(remarks))


def _fault(path: Path, called: str, digest: str) -> list[str]:
    try:
        return [] if digest_of_input(path) == digest else [f"{called}: changed"]
    except FileNotFoundError:
        return [f"{called}: missing"]
    except OSError as error:
        return [f"{called}: cannot be read ({error.strerror})"]


def _digest(record: dict[str, Any]) -> str:
    """Digest of a record as it is read back: numbers and text, in any layout of the file."""
    return sha256(json.dumps(json.loads(json_text(record)), sort_keys=True))
