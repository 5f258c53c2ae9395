"""Every benchmark, one after the other: `make bench`. Each writes its files under results/.

What is trained for a comparison (`unfolding_rivals.py`, `flows_rivals.py`) is not made here: its
rows stay as they are.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOOLS = {"run.py", "machine.py", "unfolding_rivals.py", "unfolding_average.py", "flows_rivals.py"}
TOOLS |= {"requantize.py", "licences.py", "peers.py"}
PRIORS = "natural-color natural-gray mri-brain ct-body faces-128 kernels-64"
RIVALS = "--methods unfold-color HQS ADMM TV"
COMMANDS = {  # arguments of each call, where there are several or some are needed
    "denoising": ["natural-color", "natural-gray"],
    "priors": PRIORS.split(),
    "unfolding": [
        "--search --images 4",
        RIVALS,
        "--images 8 --methods DiffPIR PnPDM --output unfolding_samplers",
        f"--noise 0.0025 --images 8 {RIVALS} --output unfolding_quiet",
        f"--noise 0.2 --images 8 {RIVALS} --output unfolding_loud",
    ],
    "unfolding_speed": ["inference", "training"],
}


def main() -> None:
    failed = []
    for script in sorted(HERE.glob("*.py")):
        if script.name in TOOLS:
            continue
        for words in COMMANDS.get(script.stem, [""]):
            print(f"== {script.stem} {words}", flush=True)
            command = [sys.executable, script, *words.split()]
            if subprocess.run(command, check=False).returncode:
                failed.append(f"{script.stem} {words}".strip())
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
