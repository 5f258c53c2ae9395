"""Which files a job is about: a folder, or a table that names them.

A folder stands for the measured files directly in it, sorted by name, and for folders of one DICOM
series each. A manifest is a CSV file
with a header, or JSON lines, with one scan each:

    file     the measured file, `scan.png` or `scans.npz:key`, relative to the manifest
    truth    the true image, where it is known; may be empty
    name     what the scan is called; from the file where absent, `scan` or `scans-key`
    others   options of the operator for this scan alone: `mask`, `maps`, `kernel`, `angles`, ...;
             a file relative to the manifest, or any text that the command line takes

The name of a scan is the folder of its results and decides its random numbers, so no two are
equal. It may have slashes, `patient-3/slice-07`, as long as no scan's folder lies in another's.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..data.files import FILES, is_file_of_images
from ..data.sources import File, split_key
from ..data.volumes import is_volume

__all__ = ["Scan", "is_many", "name_of", "read_manifest", "scans_in", "shard", "shard_named"]

COLUMNS = ("file", "truth", "name")
MANIFESTS = (".csv", ".jsonl")


@dataclass(frozen=True)
class Scan:
    """One measured file of a job.

    Args:
        name: What it is called: the folder of its results, and the seed of its random numbers.
        file: The measured file, with a key where it holds several arrays.
        truth: The true image; None where it is not known.
        operands: Options of the operator for this scan, by name.
    """

    name: str
    file: str
    truth: str | None = None
    operands: tuple[tuple[str, str], ...] = ()

    @property
    def inputs(self) -> dict[str, Path]:
        """The files that the results are made of, by what they are."""
        named = {"file": self.file, "truth": self.truth}
        found = {key: split_key(text)[0] for key, text in named.items() if text}
        files = {key: split_key(text)[0] for key, text in self.operands}
        return found | {key: file for key, file in files.items() if file.is_file()}


def is_many(path: Path) -> bool:
    """Whether a path stands for many scans: a manifest, or a folder that is no DICOM series."""
    if path.is_dir():
        return not _is_series(path)
    return path.suffix.lower() in MANIFESTS


def _is_series(folder: Path) -> bool:
    return is_volume(File(str(folder), folder))


def name_of(file: Path) -> str:
    """The name of a file without its ending, `.nii.gz` as a whole; of a folder all of it."""
    if file.is_dir():  # 1.2.840 is no name with an ending
        return file.name
    return file.name[: -len(".nii.gz")] if file.name.lower().endswith(".nii.gz") else file.stem


def scans_in(path: Path, *, truth: Path | None = None) -> tuple[Scan, ...]:
    """The scans of a folder or of a manifest.

    Args:
        path: A folder, or a .csv or .jsonl file.
        truth: A folder with the true images of a folder of scans, under the same names; their
            endings may differ.
    Returns:
        The scans, sorted by name.
    Raises:
        ValueError: There is no scan, two have one name, or a truth is missing.
    """
    if path.suffix.lower() in MANIFESTS and not path.is_dir():
        if truth is not None:
            raise ValueError(f"--truth {truth}: the truths of {path} are a column of it, 'truth'")
        return read_manifest(path)
    files = [file for file in sorted(path.iterdir()) if _is_scan(file)]
    if not files:
        known = " ".join(FILES)
        raise ValueError(
            f"{path}: no measured file directly in this folder, wanted some of {known}; a "
            "manifest (.csv, .jsonl) can name files anywhere"
        )
    truths = {} if truth is None else _truths(truth)
    lacking = [file.name for file in files if truth is not None and name_of(file) not in truths]
    if lacking:
        raise ValueError(f"--truth {truth}: nothing there is called like {_few(lacking)}")
    made = (
        Scan(name_of(file), str(file.absolute()), truths.get(name_of(file)) if truth else None)
        for file in files
    )
    return _checked(path, made)


def _is_scan(file: Path) -> bool:
    if file.name.startswith("."):
        return False
    if file.is_dir():
        return _is_series(file)
    return file.is_file() and is_file_of_images(file)


def _truths(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        raise ValueError(f"--truth {folder}: a folder of scans wants a folder of truths")
    files = [file for file in sorted(folder.iterdir()) if _is_scan(file)]
    scans = _checked(folder, (Scan(name_of(file), str(file.absolute())) for file in files))
    return {scan.name: scan.file for scan in scans}


def read_manifest(path: Path) -> tuple[Scan, ...]:
    """The scans of a manifest.

    Args:
        path: A .csv file with a header, or a .jsonl file.
    Returns:
        The scans, sorted by name.
    Raises:
        ValueError: It is no table of scans; the message names the line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such manifest")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text in UTF-8 ({error})") from error
    rows = _json_lines(path, text) if path.suffix.lower() == ".jsonl" else _csv(path, text)
    return _checked(path, (_scan(path, line, row) for line, row in rows))


def _csv(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [word.strip() for word in next(rows, [])]
        if "file" not in header:
            shown = ", ".join(word[:20] for word in header[:5]) + (", ..." if header[5:] else "")
            raise ValueError(
                f"{path}: the header of this list of files has '{shown}', wanted a column 'file' "
                "(an image in text becomes an array by np.save(name, np.loadtxt(...)))"
            )
        for row in rows:
            if not row:
                continue
            if len(row) != len(header):
                raise ValueError(
                    f"{path}, line {rows.line_num}: got {len(row)} values, wanted "
                    f"{len(header)}: {', '.join(header)}"
                )
            yield rows.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}, line {rows.line_num}: {error}") from error


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(text.splitlines(), 1):
        if not content.strip():
            continue
        try:
            row = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {line}: not JSON ({error})") from error
        if not isinstance(row, dict):
            raise ValueError(f'{path}, line {line}: got {content:.60}, wanted {{"file": ...}}')
        yield line, row


def _scan(path: Path, line: int, row: dict[str, Any]) -> Scan:
    where = f"{path}, line {line}"
    for key, value in row.items():
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{where}: {key} is {value!r}, wanted a text")
    words: dict[str, str] = {key: (value or "").strip() for key, value in row.items()}
    words = {**dict.fromkeys(COLUMNS, ""), **words}
    if not words["file"]:
        raise ValueError(f"{where}: names no file")
    folder = path.absolute().parent
    file, array = split_key(words["file"])
    name = words["name"] or "-".join([name_of(file), *(array or "").replace("/", "-").split()])
    parts = PurePosixPath(name).parts
    if any(part.startswith(".") or "\\" in part for part in parts) or name.startswith("/"):
        raise ValueError(
            f"{where}: the name '{name}' is no folder of results; wanted words joined by slashes, "
            "none with a dot in front"
        )
    if any(len(os.fsencode(part)) > 200 for part in parts):  # a file system takes 255
        raise ValueError(f"{where}: the name '{name[:40]}...' is too long for a folder")
    truths = words["truth"]
    truth = str(folder / truths) if truths else None
    operands = tuple(
        (key.replace("-", "_"), _located(folder, text))
        for key, text in words.items()
        if key not in COLUMNS and text
    )
    return Scan("/".join(parts), str(folder / words["file"]), truth, operands)


def _located(folder: Path, text: str) -> str:
    """A file relative to a manifest as an absolute one; other text as it is."""
    return str(folder / text) if split_key(folder / text)[0].exists() else text


def _checked(path: Path, scans: Iterable[Scan]) -> tuple[Scan, ...]:
    """Scans by name, each with a folder of its own."""
    found: dict[str, Scan] = {}
    for scan in scans:
        if scan.name in found:
            raise ValueError(
                f"{path}: {found[scan.name].file} and {scan.file} are both called '{scan.name}'; "
                "a manifest can name them (column 'name')"
            )
        found[scan.name] = scan
    for name in found:
        above = next((str(p) for p in PurePosixPath(name).parents if str(p) in found), None)
        if above:
            raise ValueError(f"{path}: the results of '{name}' would lie in those of '{above}'")
    if not found:
        raise ValueError(f"{path}: names no scan")
    return tuple(found[name] for name in sorted(found))


def shard(scans: tuple[Scan, ...], i: int, n: int) -> tuple[Scan, ...]:
    """Part i of n of the scans: i = 1 has the first, the one after the n-th, and so on.

    The parts are made of the whole list, not of what is missing in it, so that they stay the same
    while others work; together they are the list.

    Args:
        scans: The scans, in an order that all parts agree on.
        i: Which part, from 1 to n.
        n: Number of parts.
    """
    if not 1 <= i <= n:
        raise ValueError(f"shard: got {i}/{n}, wanted I/N with I from 1 to N")
    return scans[i - 1 :: n]


def shard_named(text: str) -> tuple[int, int]:
    """The numbers of a part, written `2/8`."""
    i, slash, n = text.partition("/")
    if not (slash and i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise ValueError(f"--shard: got '{text}', wanted I/N with I from 1 to N, like 2/8")
    return int(i), int(n)


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(f"'{name}'" for name in names[:3]) + more
