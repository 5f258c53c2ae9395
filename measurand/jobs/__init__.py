"""Jobs: from measured files to folders of results, one or many, here or on a cluster.

arguments        operators and methods from words and files
restore          a prior and a method on one measurement; the folder that is filled
reconstruction   what is done to one file
manifest         which files
task             one of many: once, whole, the same wherever it is done
batch            all of them, and what is missing
executors        who does them
"""

from .arguments import twins
from .batch import Job, failures, run, summary, table
from .executors import Loop, Pool, Ray, Slurm
from .manifest import Scan, read_manifest, scans_in, shard
from .reading import Reading
from .reconstruction import Reconstruction

__all__ = [
    "Job",
    "Loop",
    "Pool",
    "Ray",
    "Reading",
    "Reconstruction",
    "Scan",
    "Slurm",
    "failures",
    "read_manifest",
    "run",
    "scans_in",
    "shard",
    "summary",
    "table",
    "twins",
]
