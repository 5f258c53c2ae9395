r"""Finite differences of an image, gathered in groups: what "total variation" is made of.

D takes forward differences along d axes, each multiplied by a weight w_a; at the border the image
is replicated (last difference zero) or periodic. `Dx` is a field, with shape (d, B, C, ...). Its
entries are gathered in groups, and total variation is the sum of the groups' Euclidean norms:

    anisotropic  every difference by itself          sum_i sum_a |(Dx)_a,i|
    isotropic    the d differences of one pixel       sum_i ||(Dx)_:,i||
    joint        and those of all its channels        (vectorial, for colour)

The two components of a complex difference always share a group, so its magnitude counts and its
phase is kept.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["ANISOTROPIC", "ISOTROPIC", "Grid", "Variation"]


@dataclass(frozen=True, kw_only=True)
class Variation:
    """Which total variation: the differences taken, and how they are gathered in groups.

    Args:
        isotropic: Take one norm over the differences of a pixel; otherwise each by itself.
        joint: Take one norm over the channels of a pixel; otherwise each by itself.
        periodic: Wrap differences around the border; otherwise the last one is zero.
        axes: Axes along which differences are taken; all after (B, C) when absent.
        axis_weights: One positive factor per axis (for voxels of unequal sides: 1 / side).
    """

    isotropic: bool = True
    joint: bool = False
    periodic: bool = False
    axes: tuple[int, ...] | None = None
    axis_weights: tuple[float, ...] | None = None

    @classmethod
    def usual_weight(cls, noise: float, determined: float) -> float:
        """`((1 - d) sqrt(s / 0.04) + 7 d^2) 0.1 / s`: noise s, d the share that is determined.

        Of `nll + weight TV` the first part grows as 1 / s^2 and the second is in units of the
        image, so that 0.1 / s has the same meaning in any units. Less of it for quiet data, whose
        errors TV makes itself; more where little has to be filled in. The numbers fit the best
        weights for 24 problems (`benchmarks/results/defaults.json`).
        """
        d = determined
        return ((1 - d) * (noise / 0.04) ** 0.5 + 7 * d**2) * 0.1 / noise


ISOTROPIC = Variation()
ANISOTROPIC = Variation(isotropic=False)


class Grid:
    """A `Variation` laid over one tensor, all in real arithmetic of at least single precision.

    Inside, a complex image is real with an axis of two components after the channels. `enter` and
    `leave` go there and back; every other method is of the inside.

    Args:
        kind: Which total variation.
        x: The images, with shape (B, C, ...).
    Raises:
        ValueError: If the axes or their weights do not fit the tensor.
    """

    def __init__(self, kind: Variation, x: Tensor) -> None:
        if not (x.is_floating_point() or x.is_complex()):
            raise ValueError(f"total variation: got {x.dtype}, wanted real or complex floats")
        axes = tuple(range(2, x.ndim)) if kind.axes is None else kind.axes
        found = [a + x.ndim if a < 0 else a for a in axes]
        if not found or len(set(found)) < len(found) or not all(1 < a < x.ndim for a in found):
            raise ValueError(
                f"total variation: got axes {kind.axes} for a tensor of shape {tuple(x.shape)}, "
                "wanted distinct axes after the first two, (B, C, ...)"
            )
        weights = (1.0,) * len(found) if kind.axis_weights is None else kind.axis_weights
        if len(weights) != len(found) or not all(0 < w < float("inf") for w in weights):
            raise ValueError(
                f"total variation: got axis_weights {weights} for {len(found)} axes, wanted one "
                "positive number for each"
            )
        self.complex, self.dtype = x.is_complex(), x.dtype
        self.axes = [(a + self.complex, float(w)) for a, w in zip(found, weights, strict=True)]
        self.periodic, self.isotropic = kind.periodic, kind.isotropic
        self.bound = 4.0 * sum(w * w for _, w in self.axes)  # at least ||D||^2
        self.shared = [2] * kind.joint + [3] * self.complex  # axes of a field inside one group

    def enter(self, x: Tensor) -> Tensor:
        if self.complex:
            return torch.stack((x.real, x.imag), dim=2)
        return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x

    def leave(self, x: Tensor) -> Tensor:
        return torch.complex(x[:, :, 0], x[:, :, 1]) if self.complex else x.to(self.dtype)

    def enter_field(self, p: Tensor) -> Tensor:
        fields = torch.stack([self.enter(field) for field in p])
        if not self.periodic:  # what has no difference
            for (a, _), field in zip(self.axes, fields, strict=True):
                field.narrow(a, field.shape[a] - 1, 1).zero_()
        return fields

    def leave_field(self, p: Tensor) -> Tensor:
        return torch.stack([self.leave(field) for field in p])

    def differences(self, x: Tensor) -> Tensor:
        """The field `D x`."""
        fields = []
        for a, w in self.axes:
            end = x.narrow(a, 0 if self.periodic else x.shape[a] - 1, 1)
            fields.append(w * torch.diff(x, dim=a, append=end))
        return torch.stack(fields)

    def adjoint(self, p: Tensor) -> Tensor:
        """The images `D^T p` (minus a divergence); what has no difference must be zero in p."""
        total = torch.zeros_like(p[0])
        for (a, w), field in zip(self.axes, p, strict=True):
            total = total + w * (torch.roll(field, 1, a) - field)
        return total

    def difference_(self, x: Tensor, axis: int, out: Tensor) -> None:
        """Writes the differences along one axis, without weight, to `out`."""
        n = x.shape[axis]
        last = out.narrow(axis, n - 1, 1)
        torch.sub(
            x.narrow(axis, 1, n - 1), x.narrow(axis, 0, n - 1), out=out.narrow(axis, 0, n - 1)
        )
        if self.periodic:
            torch.sub(x.narrow(axis, 0, 1), x.narrow(axis, n - 1, 1), out=last)
        else:
            last.zero_()

    def descend_(self, v: Tensor, p: Tensor, out: Tensor) -> None:
        """Writes `v - D^T p` to `out`."""
        for (a, w), field in zip(self.axes, p, strict=True):
            n = v.shape[a]
            torch.add(v, field, alpha=w, out=out)
            out.narrow(a, 1, n - 1).sub_(field.narrow(a, 0, n - 1), alpha=w)
            if self.periodic:
                out.narrow(a, 0, 1).sub_(field.narrow(a, n - 1, 1), alpha=w)
            v = out

    def gather(self, p: Tensor) -> Tensor:
        """The sum of a field over each group, with size 1 along the axes a group runs over."""
        if self.isotropic:
            p = p.sum(0, keepdim=True)
        return p.sum(self.shared, keepdim=True) if self.shared else p

    def squares(self, p: Tensor, out: Tensor | None = None) -> Tensor:
        """The squared norm of each group, `gather(p * p)`; `out` is scratch."""
        if self.isotropic:
            n2 = torch.mul(p[:1], p[:1], out=out)
            for field in p[1:]:
                n2 = torch.addcmul(n2, field, field, out=out)
        else:
            n2 = torch.mul(p, p, out=out)
        return n2.sum(self.shared, keepdim=True) if self.shared else n2

    def shrinkage(self, p: Tensor, tau: Tensor) -> Tensor:
        """The factors `min(1, tau / |p|)` that bring each group into its ball. Differentiable."""
        floor = (tau * tau).clamp_min(torch.finfo(tau.dtype).tiny)
        return tau * torch.maximum(self.squares(p), floor).rsqrt()

    def project_(self, p: Tensor, tau: Tensor, scratch: Tensor) -> None:
        """Brings each group into the ball of radius tau, in place."""
        if not self.isotropic and not self.shared:
            torch.minimum(torch.maximum(p, -tau, out=p), tau, out=p)
            return
        floor = (tau * tau).clamp_min_(torch.finfo(tau.dtype).tiny)
        n2 = self.squares(p, scratch)
        p.mul_(torch.maximum(n2, floor, out=n2).rsqrt_().mul_(tau))
