"""The command that asks whether operator, prior and data fit: check."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..checks.blind import check_blind
from ..checks.compatibility import check_fit
from ..checks.questions import DOUBTFUL, Verdict, fits
from ..devices import device_named
from ..jobs.arguments import notes_of
from ..jobs.blind import blind_measured, theta_prior_of
from ..jobs.choice import choice
from ..jobs.measured import measured, operator_for
from ..jobs.noise_kinds import Poisson
from ..jobs.restore import Loaded, prior_for, prior_loaded
from ..operators import LinearOperator
from ..priors.trained import Images
from ..records import json_text
from .measured import Measured

__all__ = ["Check"]


@dataclass(frozen=True)
class Check(Measured):
    """Do this operator, this prior and this measurement fit together?

    Prints a table of verdicts: the laws of the operator, the shape and kind of the data, what the
    prior expects, the range of values, the noise level. The exit code is 1 when something does not
    fit.

    Args:
        device: cpu, cuda, or auto.
        json: Print the verdicts as JSON.
    """

    device: str = "cpu"
    json: bool = False

    def __call__(self, command: list[str]) -> int:
        device = device_named(self.device)
        found = self._blind(device) if self.blind else self._known(device)
        return self._said(*found)

    def _known(self, device: torch.device) -> tuple[list[Verdict], list[str]]:
        """Verdicts and notes on a known operator."""
        twin = self.operator

        def loaded(operator: LinearOperator, ct: bool) -> Loaded:
            return prior_loaded(self.prior or choice(operator, ct=ct).prior, device)

        found = measured(
            self.file,
            partial(operator_for, twin, self.shape),
            self.reading,
            lambda operator, ct: loaded(operator, ct).window,
        )
        m, notes = found.measurement.to(device), found.notes
        if len(m) > 1:
            notes.append(f"the middle one of {len(m)} images")
            m = m[len(m) // 2]
        prior, _, more = prior_for(loaded(found.measurement.operator, found.ct), m)
        verdicts = check_fit(m.operator, m.noise, m.y, prior, unit=found.unit)
        if isinstance(self.noise, Poisson):
            other = "another --noise.gain, --noise.offset or --noise.read explains the data better"
            verdicts = [
                v._replace(advice=other) if v.name == "noise level" and v.advice else v
                for v in verdicts
            ]
        return verdicts, [*notes, *notes_of(twin, m.operator.in_shape), *more]

    def _blind(self, device: torch.device) -> tuple[list[Verdict], list[str]]:
        """Verdicts and notes on an operator with unknowns."""
        if self.shape is not None:
            raise ValueError("--shape is for known operators: that of a family follows from y")
        found = blind_measured(self.file, self.operator, self.reading)
        blind: Any = found.measurement.to(device)
        name = self.prior or "natural-color"
        images = Images(blind.family.in_shape, torch.float32, str(blind.family))
        prior, more = prior_loaded(name, device).prior.fitted(images, tile=1024, name=name)
        theta, _ = theta_prior_of(blind.family, self.theta_prior, device)
        verdicts = check_blind(blind, prior, theta, unit=found.unit)
        return verdicts, [*found.notes, *more]

    def _said(self, verdicts: list[Verdict], notes: list[str]) -> int:
        """Print the verdicts; return the exit code."""
        good, doubts = fits(verdicts), sum(v.verdict == DOUBTFUL for v in verdicts)
        if self.json:
            said = {"fits": good, "doubts": doubts, "verdicts": [v._asdict() for v in verdicts]}
            print(json_text(said))
            return 0 if good else 1
        for note in notes:
            print(f"note: {note}")
        width = max(len(v.name) for v in verdicts)
        for v in verdicts:
            print(f"{v.verdict:<12}  {v.name:<{width}}  {v.found}")
            if v.advice:
                print(f"{'':<12}  {'':<{width}}  -> {v.advice}")
        print(_conclusion(good, doubts))
        return 0 if good else 1


def _conclusion(good: bool, doubts: int) -> str:
    """The last line of a table of verdicts."""
    if not good:
        return "something does not fit"
    if doubts:
        return (
            f"nothing contradicts, but {doubts} {'doubt' if doubts == 1 else 'doubts'}: see above"
        )
    return "everything fits"
