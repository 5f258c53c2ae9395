r"""The exact mixture of Gaussians: several modes, every answer known.

    p(x) = sum_k w_k N(x; m_k, C_k)

With noise sigma it is the mixture of `N(m_k, C_k + sigma^2)`, so that the denoiser is the mean of
the components' denoisers under their responsibilities `r_k ~ w_k N(v; m_k, C_k + sigma^2)`. A
linear measurement leaves a mixture: each component its own posterior, its weight multiplied by the
evidence `N(y; A m_k, A C_k A^H + s^2)`.

References:
    | Pattern Recognition and Machine Learning, section 9.2 (Bishop, 2006)
"""

from collections.abc import Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from ..tensors import Generators, as_generators, randn_like
from .gaussian import EigenGaussian, LinearGaussian
from .spectral import CosineGaussian

__all__ = ["GaussianMixture"]


class GaussianMixture(nn.Module):
    """A mixture of normal distributions, `p(x) = sum_k w_k N(x; m_k, C_k)`.

    Args:
        weights: Positive weights, with shape (K,), or (B, K) for one mixture per item; they are
            divided by their sum.
        components: The K normal distributions, all of one shape.
    """

    not_by_name: ClassVar[str] = "is made of means and covariances: use it in Python"

    weights: Tensor
    range: tuple[float, float] | None = None

    def __init__(self, weights: Tensor, components: Sequence[EigenGaussian]) -> None:
        super().__init__()
        shapes = {component.shape for component in components}
        if weights.shape[-1] != len(components) or len(shapes) != 1 or bool((weights < 0).any()):
            raise ValueError(
                f"GaussianMixture: got weights with shape {tuple(weights.shape)} and components "
                f"of the shapes {sorted(shapes)}, wanted one weight >= 0 each, and one shape"
            )
        self.register_buffer("weights", weights / weights.sum(-1, keepdim=True))
        self.components = nn.ModuleList(components)

    @property
    def parts(self) -> list[EigenGaussian]:
        """The components, as a plain list."""
        return list(self.components)  # type: ignore[arg-type]

    @property
    def dtype(self) -> torch.dtype:
        """Kind and precision of the images."""
        return self.parts[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image, without the batch axis."""
        return self.parts[0].shape

    @property
    def mean(self) -> Tensor:
        """The mean of the mixture, with shape (1 or B, *shape)."""
        return self._blend(self.weights, [part.mean for part in self.parts])

    @property
    def covariance(self) -> Tensor:
        """The covariance of the mixture, per real component, with shape (1 or B, n, n)."""
        mean, each = self.mean.flatten(1), []
        for part in self.parts:
            away = part.mean.flatten(1) - mean
            outer = away.unsqueeze(-1) * away.unsqueeze(-2).conj()
            each.append(part.covariance + (outer / 2 if away.is_complex() else outer))
        return self._blend(self.weights, each)

    def responsibilities(self, v: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """The probability of each component given a noisy image, with shape (B, K)."""
        return torch.softmax(self._joint(v, sigma), dim=-1)

    def denoise(self, v: Tensor, sigma: float | Tensor, condition: Tensor | None = None) -> Tensor:
        """The posterior mean `E[x | v = x + sigma n]`.

        Args:
            v: Noisy image, with shape (B, *shape).
            sigma: Noise standard deviation, a scalar or one per item.
            condition: Not used.
        Returns:
            The estimate, with the shape of `v`.
        """
        each = [part.denoise(v, sigma) for part in self.parts]
        return self._blend(self.responsibilities(v, sigma), each)

    forward = denoise

    def __repr__(self) -> str:
        return f"GaussianMixture({len(self.parts)} components, shape={self.shape})"

    def score(self, v: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """The score `grad log p_sigma(v)` of the image with noise, with the shape of `v`."""
        each = [part.score(v, sigma) for part in self.parts]
        return self._blend(self.responsibilities(v, sigma), each)

    def log_prob(self, x: Tensor, sigma: float | Tensor = 0.0) -> Tensor:
        """The log-density of the image, or of the image with noise, with shape (B,)."""
        return torch.logsumexp(self._joint(x, sigma), dim=-1)

    def sample(self, n: int = 1, generator: Generators = None) -> Tensor:
        """Draws, with shape (n, *shape)."""
        blank = self.mean[:1].expand(n, *self.shape)
        generator = as_generators(generator, blank)
        # a component is drawn through a normal number, so that one kind of draw is enough
        normal = randn_like(self.weights.new_empty(n, 1), generator)
        uniform = torch.special.ndtr(normal)
        edges = self.weights.cumsum(-1).expand(n, -1).contiguous()
        chosen = torch.searchsorted(edges, uniform).clamp(max=len(self.components) - 1)
        noise = randn_like(blank, generator)
        each = [part.color(noise) for part in self.parts]
        picks = torch.zeros_like(edges).scatter(1, chosen, 1.0)
        return self._blend(picks, each)

    def given(self, measurement: LinearGaussian) -> Self:
        """The exact posterior under a linear measurement with Gaussian noise, again a mixture.

        Args:
            measurement: What was seen; small enough for the dense matrix of its operator.
        Returns:
            The posterior mixture, with `weights` (B, K).
        """
        found = [part.condition(measurement) for part in self.parts]
        evidence = torch.stack([evidence for _, evidence in found], dim=-1)
        weights = torch.softmax(self.weights.log() + evidence, dim=-1)
        return type(self)(weights, [posterior for posterior, _ in found])

    def _joint(self, v: Tensor, sigma: float | Tensor) -> Tensor:
        """The log of `w_k N(v; m_k, C_k + sigma^2)`, with shape (B, K)."""
        each = torch.stack([part.log_prob(v, sigma) for part in self.parts], dim=-1)
        return self.weights.log() + each

    @staticmethod
    def _blend(weights: Tensor, each: list[Tensor]) -> Tensor:
        """The sum over components, each with one weight per item."""
        columns = weights.reshape(-1, len(each)).unbind(-1)
        total = torch.zeros_like(each[0])
        for column, value in zip(columns, each, strict=True):
            total = total + column.reshape(-1, *[1] * (value.ndim - 1)) * value
        return total

    @classmethod
    def example(cls) -> Self:
        """A tiny instance for images of shape (1, 8, 8), on which the laws are tested."""
        dark = CosineGaussian(torch.full((1, 1, 8, 8), -0.2), torch.full((8, 8), 0.2))
        return cls(torch.tensor([0.4, 0.6]), [dark, CosineGaussian.example()])
