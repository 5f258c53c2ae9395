r"""Magnetic resonance images of the brain, complex: a magnitude with a smooth phase.

Archives mostly keep magnitudes m. A receive field and the main field's error give an image a
smooth phase, so that a training image is

    x = m exp(i phi),    phi(r) = a + b . r + r' C r + waves of at most two periods,

with random coefficients, new in every step; a is uniform, so that the prior does not know the
global phase. Complex files keep their own phase, with a random `a` alone. Each image is scaled by
its 99.5 % quantile of |x|, the scale a measurement can tell, and by +-20 % at random.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.arrays import one_channel
from ..data.collection import images
from .material import OfFiles

__all__ = ["Brain", "smooth_phase"]


@dataclass(frozen=True)
class Brain(OfFiles):
    """Complex slices with a 99.5 % quantile of the magnitude of one.

    Args:
        scale: Largest relative change of the intensity while training.
    """

    scale: float = 0.2
    channels = 1
    dtype = torch.complex64

    @property
    def facts(self) -> dict[str, Any]:
        return {"units": "complex, 99.5 % quantile of the magnitude of a slice is 1"}

    def read(self, path: Path, under: str, skip_bad: bool = False) -> list[NDArray[np.float16]]:
        """Returns slices as (H, W, 3): magnitude, and cosine and sine of their own phase."""
        found = images(path, under=under, skip_bad=skip_bad, check=one_channel).images
        return [x for x in map(prepared, found) if x is not None]

    def image(self, stored: Tensor, generator: torch.Generator | None) -> Tensor:
        """Returns stored slices as complex images with a phase."""
        magnitude, cosine, sine = stored.float().split(1, dim=1)
        own = torch.complex(cosine, sine)
        fixed = torch.Generator(stored.device).manual_seed(0) if generator is None else generator
        x = magnitude * own
        n = len(x)
        simulated = smooth_phase(n, x.shape[2:], fixed)
        # a magnitude's own phase is zero everywhere: only that one is simulated
        bare = (sine == 0).flatten(1).all(1)[:, None, None, None]
        turn = 2 * math.pi * torch.rand((n, 1, 1, 1), generator=fixed, device=x.device)
        x = x * torch.polar(torch.ones_like(magnitude), turn + torch.where(bare, simulated, 0.0))
        if generator is None:
            return x
        u = torch.rand((n, 1, 1, 1), generator=generator, device=x.device)
        return x * (1 + self.scale * (2 * u - 1))


def prepared(image: NDArray[Any]) -> NDArray[np.float16] | None:
    """Returns the scaled magnitude and the phase of a slice.

    None where nothing is in it: nothing at all, or a few points a thousand times above the rest,
    which is no slice of a head and more than float16 may hold.
    """
    x = np.asarray(image)
    magnitude = np.abs(x).astype(np.float32)
    top = float(np.quantile(magnitude, 0.995))
    if not top > 0 or magnitude.max() > 1000 * top:
        return None
    phase = np.angle(x) if np.iscomplexobj(x) else np.zeros_like(magnitude)
    return np.stack((magnitude / top, np.cos(phase), np.sin(phase)), -1).astype(np.float16)


def smooth_phase(n: int, shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Returns n random smooth phases in radians, without a constant, with shape (n, 1, H, W).

    The scale is per 256 pixels, so that a crop has the slopes that a whole image has.
    """
    device = generator.device

    def normal(*size: int) -> Tensor:
        return torch.randn((n, *size, 1, 1), generator=generator, device=device)

    centre = 0.3 * normal(2)
    y, x = (torch.linspace(-s / 256, s / 256, s, device=device) for s in shape)
    r = torch.stack(torch.broadcast_tensors(y[:, None], x)) + centre
    phase = (normal(2) * r).sum(1) + (0.7 * normal(2) * r**2).sum(1)
    phase = phase + 0.7 * normal(1)[:, 0] * r[:, 0] * r[:, 1]
    for k in (1, 2):
        waves = torch.einsum("nkab,nkhw->nkhw", normal(2), r)  # a random direction each
        phase = phase + (0.5 / k) * normal(1)[:, 0] * torch.sin(math.pi * k * waves.sum(1))
    return phase[:, None]
