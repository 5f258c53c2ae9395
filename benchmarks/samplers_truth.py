"""Samplers against known answers: the tables of docs/methods/samplers.md.

Gaussian problem: error of the mean in posterior standard deviations, relative error of the
covariance (Frobenius), ratio of the traces. Mixture problem: weight of the favoured mode, exactly
0.761. The problems are those of tests/known_answers.py, 20,000 and 4,000 draws each; the draws
alone leave errors of about .007 (mean), .015 (covariance) and .007 (weight).
"""

import sys
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from machine import write

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from known_answers import (
    first_mode,
    gaussian_problem,
    mixture_problem,
    split_target,
    spread_errors,
)

from measurand.samplers import (
    DAPS,
    DPS,
    DiffPIR,
    EulerFlow,
    EulerSDE,
    HeunFlow,
    HeunSDE,
    PiGDM,
    PnPDM,
    Reverse,
    ReverseSDE,
)

DRAWS, CHAINS = 20_000, 4_000

GAUSSIAN: dict[str, Any] = {
    "ReverseSDE, exact posterior denoiser, 400 steps": ReverseSDE(400, 100.0),
    "EulerSDE, the same": EulerSDE(400, 100.0),
    "HeunSDE, 200 steps": HeunSDE(200, 100.0),
    "EulerFlow, 400 steps": EulerFlow(400, 100.0),
    "HeunFlow, 200 steps": HeunFlow(200, 100.0),
    "PnPDM (defaults)": PnPDM(),
    "PnPDM.quick()": PnPDM.quick(),
    "PnPDM 10 to .1, EulerSDE 40 steps": PnPDM(100, 10.0, 0.9, 0.1, EulerSDE(40, 10.0)),
    "PnPDM 10 to .1, ReverseSDE 20 steps": PnPDM(100, 10.0, 0.9, 0.1, ReverseSDE(20, 10.0)),
    "PnPDM 10 to .3, ReverseSDE 20 steps": PnPDM(100, 10.0, 0.9, 0.3, ReverseSDE(20, 10.0)),
    "PnPDM with EulerFlow (not a sampler)": PnPDM(100, 10.0, 0.9, 0.1, EulerFlow(40, 10.0)),
    "PnPDM with HeunFlow (not a sampler)": PnPDM(100, 10.0, 0.9, 0.1, HeunFlow(40, 10.0)),
    "PiGDM, 400 steps from 100": PiGDM(400, 100.0),
    "PiGDM (defaults)": PiGDM(),
    "DAPS 200 x 5, sigma 100 to .1, width 1": DAPS(200, 5, 100.0, 0.1, width=1.0),
    "DAPS the same, tau .01": DAPS(200, 5, 100.0, 0.1, width=1.0, tau=0.01),
    "DAPS (defaults)": DAPS(),
    **{f"DPS, zeta {zeta}": DPS(zeta=zeta) for zeta in (0.01, 0.03, 0.1, 0.3)},
    **{
        f"DiffPIR, 100 steps, lam {lam}, zeta {zeta}": DiffPIR(100, lam, zeta, 100.0)
        for lam, zeta in ((1, 1.0), (1, 0.1), (7, 1.0), (7, 0.3))
    },
    "DiffPIR (defaults)": DiffPIR(),
}

MIXTURE: dict[str, Any] = {
    "ReverseSDE, exact posterior denoiser, 400 steps": ReverseSDE(400, 100.0),
    "PnPDM, decay .9": PnPDM(),
    "PnPDM, decay .95": PnPDM(sweeps=120, decay=0.95),
    "PnPDM, decay .99": PnPDM(sweeps=450, decay=0.99),
    "PnPDM, rho .5 fixed": PnPDM(sweeps=300, rho_max=0.5, rho_min=0.5),
    "PnPDM.quick()": PnPDM.quick(),
    "PiGDM": PiGDM(),
    "DAPS": DAPS(),
    "DPS, zeta .01": DPS(zeta=0.01),
    "DPS, zeta .1": DPS(zeta=0.1),
    "DiffPIR": DiffPIR(),
}


def draws(method: Any, prior: Any, m: Any, n: int) -> torch.Tensor:
    """Draws of the posterior by a method, by the exact denoiser where it is a reverse process."""
    generator = torch.Generator().manual_seed(0)
    if isinstance(method, Reverse):
        x0 = torch.zeros(n, *prior.shape, dtype=prior.dtype)
        return method(None, prior.given(m), x0=x0, generator=generator)
    return method(m.repeat(n), prior, generator=generator)


def main() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", UserWarning)  # the flow as a prior step is here on purpose
    began = time.process_time()
    prior, m = gaussian_problem()
    exact = prior.given(m)
    gaussian = []
    for name, method in GAUSSIAN.items():
        errors = spread_errors(draws(method, prior, m, DRAWS), exact)
        nfe = method.nfe() if isinstance(method, Reverse) else method.nfe
        row = dict(
            zip(("mean", "covariance", "trace"), (round(e, 3) for e in errors), strict=True)
        )
        gaussian.append({"sampler": name, "nfe": nfe, **row})
        print(f"{name:50s} {nfe:5d}   " + "  ".join(f"{v:.3f}" for v in row.values()), flush=True)
    bare = spread_errors(prior.sample(DRAWS, torch.Generator().manual_seed(0)), exact)
    gaussian.append(
        {"sampler": "prior alone", "nfe": 0}
        | dict(zip(("mean", "covariance", "trace"), (round(e, 3) for e in bare), strict=True))
    )
    prior, m = mixture_problem()
    targets = {
        str(rho): round(float(split_target(prior, m, rho).weights[0, 0]), 3)
        for rho in (0.3, 0.5, 1.0)
    }
    mixture = []
    for name, method in MIXTURE.items():
        weight = round(first_mode(draws(method, prior, m, CHAINS)), 3)
        mixture.append({"sampler": name, "weight": weight})
        print(f"{name:50s}         {weight:.3f}", flush=True)
    path = write(
        "samplers_truth",
        {
            "cpu_seconds": round(time.process_time() - began),
            "gaussian": {"draws": DRAWS, "rows": gaussian},
            "mixture": {
                "chains": CHAINS,
                "exact": round(float(prior.given(m).weights[0, 0]), 3),
                "split_target_at_rho": targets,
                "rows": mixture,
            },
        },
    )
    print(path)


if __name__ == "__main__":
    main()
