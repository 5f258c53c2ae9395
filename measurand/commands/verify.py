"""The command that compares results with their digests: verify."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from ..jobs.provenance import verified
from ..records import json_text

__all__ = ["Verify"]


@dataclass(frozen=True)
class Verify:
    """Are results, and what they were made of, still what they were?

    Every file that a run wrote, its inputs where they still are, and its record are compared with
    the digests in the record. Ends with 1 where something is missing or changed.

    Args:
        folder: Results of a run, or a folder of such folders.
        json: Print JSON.
    """

    folder: Positional[Path]
    json: bool = False

    def __call__(self, command: list[str]) -> int:
        found = verified(self.folder)
        bad = sum(bool(one.faults) for one in found)
        if self.json:
            rows = [
                {"record": str(v.record), "faults": v.faults, "remarks": v.remarks} for v in found
            ]
            print(json_text({"results": len(found), "damaged": bad, "rows": rows}))
            return int(bad > 0)
        for one in found:
            for text in (*one.faults, *(f"note: {remark}" for remark in one.remarks)):
                print(f"{one.record.parent}: {text}")
        print(f"{len(found)} results, {len(found) - bad} as they were written, {bad} not")
        return int(bad > 0)
