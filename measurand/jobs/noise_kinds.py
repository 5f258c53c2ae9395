r"""The noise of measured files, as a choice on the command line.

    gaussian    y = m + sigma n, sigma said or estimated
    poisson     u ~ offset + gain Poisson(s / gain) + read n, of samples u of a camera or detector
                with the signal s above the offset

Poisson noise is met by its variance,

    v = gain s + read^2,    s from the mean of 5 x 5 samples around each, at least one count,

and data are weighed by `w = min(sqrt v) / sqrt v`: `w y = w A x + min(sqrt v) n`. Every method
for Gaussian noise then gives each sample the trust that it deserves. Good from a few counts per
sample on; below that the variance is not known from the data.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Gaussian", "NoiseKind", "Poisson", "noise_kinds"]

_HALF = 2  # samples on each side of the one whose mean is taken


@dataclass(frozen=True)
class Gaussian:
    """White noise of one level.

    Args:
        sigma: Standard deviation, in the units of `--sigma`; estimated from the data when absent.
    """

    sigma: float | None = None


@dataclass(frozen=True)
class Poisson:
    """Noise of counted light, with that of the electronics.

    Args:
        gain: Samples of the file per count.
        offset: Sample without any light.
        read: Standard deviation of what is added to the counts, in samples of the file.
    """

    gain: float = 1.0
    offset: float = 0.0
    read: float = 0.0

    def __post_init__(self) -> None:
        if not (0 < self.gain < torch.inf and 0 <= self.read < torch.inf):
            raise ValueError(
                f"--noise: got gain {self.gain:g} and read {self.read:g}, wanted a positive gain "
                "and a read noise that is not negative"
            )

    def deviation(self, u: Tensor, seen: Tensor) -> Tensor:
        """Return the standard deviation of samples (N, C, H, W), in units of the file.

        Args:
            u: The samples; any numbers where `seen` is false.
            seen: Which were measured, with the shape of `u`.
        """
        count = _local(seen.to(u.dtype)).clamp_min(1e-9)
        signal = _local(torch.where(seen, u - self.offset, 0.0)) / count
        return (self.gain * signal.clamp_min(self.gain) + self.read**2).sqrt()


NoiseKind = Gaussian | Poisson


def noise_kinds() -> dict[str, type]:
    """Every kind of noise by its name on the command line."""
    return {"gaussian": Gaussian, "poisson": Poisson}


def _local(u: Tensor) -> Tensor:
    """The mean over windows, which end at the border."""
    width = 2 * _HALF + 1
    return functional.avg_pool2d(u, width, 1, _HALF, count_include_pad=False)
