r"""The physics inside an unfolded posterior score: two measurements of one image.

Seen are `y = A x + s_y n1` and `x_t = x + s_t n2`. Their misfit

    G(x) = ||y - A x||^2 / (2 s_y^2) + ||x - x_t||^2 / (2 s_t^2)

has a proximal map wherever that of y alone is known, because two quadratic anchors are one:

    prox_G(u, r) = argmin_x ||y - A x||^2 / (2 s_y^2) + w ||x - v||^2 / 2,
    w = s_t^-2 + r^-2,   v = (s_t^-2 x_t + r^-2 u) / w.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..measurement import Measurement
from ..nets.unet import exact
from ..start import first_guess
from ..tensors import per_item

__all__ = ["Answers", "DataTerm", "exactly", "features", "norms", "settled"]

FLOOR = 1e-3  # least noise, relative to ||A||: below, the data step is ill-conditioned


class DataTerm(NamedTuple):
    """What G is made of, and the numbers that step sizes follow from.

    Args:
        x_t: Noisy image, (B, ...).
        sigma: Its noise level s_t, (B,).
        measurement: A measurement with noise.
        features: ln s_t, ln s_y and ln tr(A^H A) / n of the problem divided by ||A||, (B, 3).
    """

    x_t: Tensor
    sigma: Tensor
    measurement: Measurement
    features: Tensor

    def prox(self, u: Tensor, r: Tensor) -> Tensor:
        """Returns `argmin_x G(x) + ||x - u||^2 / (2 r^2)`, by merging the two anchors.

        Where it is iterative and nothing is differentiated, to a residual of 1e-4: of a blur at
        its edges the solution of training takes four times as long and gains below 0.001 dB.
        """
        residual = None if torch.is_grad_enabled() else 1e-4
        with exactly(u):
            own, near = per_item(self.sigma, u) ** -2, per_item(r, u) ** -2
            w = own + near
            v, radius = (own * self.x_t + near * u) / w, w.rsqrt().flatten()
            return self.measurement.prox(v, radius, residual=residual)

    def start(self, radius: float) -> Tensor:
        """Returns `prox_G(b, radius)` of b = A^H y / A^H A 1 with its holes filled.

        Without the second anchor the null space of A would hold noise of the level s_t, and around
        b = 0 a hole wider than a few pixels is not filled in a few steps.

        Args:
            radius: Standard deviation of the images.
        """
        with exactly(self.x_t):
            guess = first_guess(self.measurement).expand_as(self.x_t)
        return self.prox(guess, torch.full_like(self.sigma, radius))

    def gradient(self, u: Tensor) -> Tensor:
        """Returns the gradient of G."""
        with exactly(u):
            return self.measurement.gradient(u) + (u - self.x_t) / per_item(self.sigma, u) ** 2

    @property
    def lipschitz(self) -> Tensor:
        """Returns the Lipschitz constant of the gradient, (B,)."""
        size = norms(self.measurement) / self.measurement.sigma
        return size.to(self.sigma) ** 2 + self.sigma**-2


def exactly(x: Tensor) -> torch.autocast:
    """Returns a context without autocast: physics stays in the precision of the measurement."""
    return torch.autocast(x.device.type, enabled=False)


def settled(measurement: Measurement) -> Measurement:
    """Returns the measurement with noise of at least 1e-3 of the operator's norm."""
    least = FLOOR * norms(measurement)
    noise = type(measurement.noise)(torch.maximum(measurement.sigma, least))
    return Measurement(measurement.operator, noise, measurement.y)


def features(sigma: Tensor, measurement: Measurement) -> Tensor:
    """Returns ln s_t, ln (s_y / ||A||) and ln (tr(A^H A) / (n ||A||^2)), with shape (B, 3).

    A proximal map does not change when A, y and s_y are divided by one number, and step sizes
    should not either.
    """
    with exactly(sigma):  # an operator may apply itself to know them
        size = norms(measurement).to(sigma)
        traces = torch.tensor(measurement.operator.traces).to(sigma)
    numbers = (sigma, measurement.sigma.to(sigma) / size, (traces / size**2).clamp_min(1e-9))
    return torch.stack([x.flatten().expand(len(sigma)).log() for x in numbers], 1)


def norms(measurement: Measurement) -> Tensor:
    """Returns ||A|| of each operator, with shape (1,) or (B,)."""
    sigma = measurement.sigma
    return torch.tensor(measurement.operator.norms, device=sigma.device, dtype=sigma.dtype)


class Answers(nn.Module):
    """Numbers in (-1, 1) that follow from the features of a problem; zero at first.

    Args:
        n: How many.
    """

    def __init__(self, n: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 32), nn.Linear(32, n)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Returns n numbers for each item, with shape (B, n)."""
        # a radius is physics: bfloat16 would move it by a percent
        hidden = nn.functional.silu(exact(self.first, features / 4))
        return exact(self.second, hidden).tanh().to(features)
