r"""Diff-Unfolding: a posterior score whose layers are the steps of an optimisation method.

A measurement `y = A x + s_y n1` and a noisy image `x_t = x + s_t n2` are independent given x, so
that the score of the noisy posterior is its denoiser (Tweedie, with y),

    grad log p(x_t | y) = (E[x | x_t, y] - x_t) / s_t^2.

The network below computes E[x | x_t, y]. With R = -log p(x) the law behind it is

    -log p(x | x_t, y) = G(x) + R(x),   G = ||y - A x||^2 / (2 s_y^2) + ||x - x_t||^2 / (2 s_t^2),

and of these only R is learnt: G is physics, and has a proximal map in closed form or by conjugate
gradients. An optimisation method of K steps in which the proximal map of R is a denoiser D(v, r)
is then a network whose weights know images and nothing of A. Trained on some operators it serves
others: swap the measurement. For a Gaussian prior two of the methods have E as their fixed point
(the first at beta = 1; below, the data count beta-fold: G'(x) beta + R'(x) = 0):

    UnfoldedDR     Douglas-Rachford      x = prox_G(u, r),  v = x + beta (x - u),
                                         z = D(v, r),       u <- u + alpha (z - x)
    UnfoldedPGM    proximal gradient     z = D(u - m grad G(u), sqrt(m)),   u <- z
    UnfoldedHQS    half-quadratic        z = D(prox_G(u, r), r),            u <- z     (biased)

What a denoiser is told to remove shrinks from step to step, from all of an image to what the noise
of the data leaves in it. With p = (k - 1) / (K - 1), from 0 in the first step to 1 in the last (1
for a single step),

    r_k = (s_t^-2 + rho_k^-2)^-1/2,    rho_k = rho_1^(1 - p) rho_K^p,
    rho_1 = 2 s_data exp(1.5 tanh h_1),    rho_K = 4 s_y / ||A|| exp(1.5 tanh h_K) <= rho_1,

h_1 and h_K a small network of the `features` of a problem (noise levels, trace), zero at first.
Between two steps u moves to z + (r_{k+1} / r_k)^2 (u - z): the fixed point belongs to a dual,
(u - z) / r^2, and stays where it is while r changes. alpha in (0, 1.5) and beta in (0, 1) have a
first and a last value, too, so that any number of steps can be taken.

All start at `prox_G(b, s_data)`, see `physics.DataTerm.start`. Training is score matching over
many operators, see `score_matching`.

Deviations. The paper's scheme, number of steps, backbone and weights are not public; everything
beside the identity above is ours.

References:
    | Diff-Unfolding: A Model-Based Score Learning Framework for Inverse Problems (Wang et al.,
      2025), arXiv:2505.11393
    | On the Douglas-Rachford Splitting Method and the Proximal Point Algorithm for Maximal
      Monotone Operators (Eckstein & Bertsekas, 1992)
"""

import copy
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..measurement import Measurement
from ..nets import ConvUNet
from ..priors.edm import EDMDenoiser
from ..priors.grey import Grey
from ..priors.trained import (
    Evaluation,
    Exported,
    Fitted,
    Images,
    Score,
    Trained,
    images_named,
    numbers,
)
from ..priors.wrappers import Tiled
from ..solvers.posterior import PosteriorMean
from ..tensors import per_item
from .physics import Answers, DataTerm, features, settled
from .posterior_denoiser import PosteriorDenoiser

__all__ = ["Unfolded", "UnfoldedDR", "UnfoldedHQS", "UnfoldedPGM"]

Pair = tuple[Tensor, Tensor]


class Unfolded(Trained):
    """E[x given x_t, y] by a fixed number of steps with a learned prior.

    Differentiable in x_t, s_t and the weights, through the proximal maps of the data.

    Args:
        priors: Denoisers D(v, r), modules: one for all steps, or one for each.
        depth: Number of steps K.
        sigma_data: Standard deviation of the images.
        recompute: While training, keep only the images between steps and compute the rest again:
            memory of one step instead of K, for a third more arithmetic.
    """

    kind = "unfolded"

    def __init__(
        self,
        priors: Sequence[Any],
        depth: int = 4,
        *,
        sigma_data: float = 0.5,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if depth < 1 or len(priors) not in (1, depth):
            raise ValueError(
                f"{type(self).__name__}: got {len(priors)} priors for {depth} steps, wants one "
                "for all or one for each"
            )
        self.priors: Any = nn.ModuleList(priors)
        self.depth, self.sigma_data, self.recompute = depth, sigma_data, recompute
        self.tile: int | None = None
        self.card: dict[str, Any] = {}  # what is known of the weights
        self.radius, self.spread = Answers(2), Answers(1)  # radii of the first and the last step

    @classmethod
    def full(cls, channels: int = 3) -> Self:
        """Returns four steps with a large network each, untrained: 47 million weights."""
        return cls([denoiser(channels, 112, 208, 272) for _ in range(4)], 4, recompute=True)

    @classmethod
    def small(cls, channels: int = 3) -> Self:
        """Returns four steps that share a network, untrained: 4.5 million weights."""
        return cls([denoiser(channels, 64, 128, 160)], 4)

    @classmethod
    def tiny(cls, channels: int = 3) -> Self:
        """Returns two steps that share a network, untrained, for tests: 0.2 million weights."""
        return cls([denoiser(channels, 16, 32)], 2)

    @property
    def range(self) -> tuple[float, float] | None:
        """Lowest and highest value of the images."""
        return self.priors[0].range

    @property
    def dtype(self) -> torch.dtype:  # type: ignore[override]
        """Kind of the images."""
        return self.priors[0].dtype

    @property
    def channels(self) -> int:  # type: ignore[override]
        """Channels of the images."""
        return self.priors[0].channels

    def extra_repr(self) -> str:
        return f"depth={self.depth}, {super().extra_repr()}"

    def with_depth(self, depth: int) -> Self:
        """Returns the same method with another number of steps; weights are copied.

        Radii and step sizes lie between those of the first step and those of the last, whatever
        the number. Problems with a large null space profit from more steps than a network was
        trained with.

        Raises:
            ValueError: The steps have a prior each, or there are to be none.
        """
        if depth < 1:
            raise ValueError(f"{type(self).__name__}: got {depth} steps, wants at least 1")
        if len(self.priors) > 1:
            raise ValueError(
                f"{type(self).__name__}: its {self.depth} steps have a prior each, so that there "
                "are no others; train one whose steps share a prior"
            )
        other = copy.deepcopy(self)
        other.depth = depth
        return other

    def with_tiles(self, tile: int) -> Self:
        """Returns the same network, with the same weights, whose priors see overlapping tiles.

        The physics stays on the whole image. What a prior needs of memory grows with its input.

        Args:
            tile: Height and width of a tile, in pixels.
        """
        other = copy.copy(self)
        other.tile = tile
        return other

    def in_grey(self) -> Self:
        """Returns a network of grey images whose priors are shown them as equal channels.

        Radii follow from the noise as it stands in the grey image; weights are copied.
        """
        other = copy.deepcopy(self)
        other.priors = nn.ModuleList(Grey(prior, self.channels) for prior in other.priors)
        return other

    def given(self, measurement: Measurement) -> PosteriorDenoiser:
        """Returns the denoiser of the posterior of a measurement with Gaussian noise."""
        return PosteriorDenoiser(self, settled(measurement))

    def steps(
        self, x_t: Tensor, sigma: Tensor, measurement: Measurement, depth: int | None = None
    ) -> list[Tensor]:
        """Returns the estimate after each step, z_1 to z_K, each with the shape of `x_t`.

        Args:
            x_t: Noisy image, with shape (B, ...).
            sigma: Its noise level, with shape (B,).
            measurement: What was seen, with noise (see `settled`).
            depth: Another number of steps, see `with_depth`.
        """
        data = DataTerm(x_t, sigma, measurement, features(sigma, measurement))
        places = self.places(self.depth if depth is None else depth)
        radii = self.radii(places, data)
        u, found = data.start(self.sigma_data), []
        for k, (at, r) in enumerate(zip(places, radii, strict=True)):
            z, u = self.step(k, at, u, r, data)
            found.append(z)
            if k + 1 < len(radii):  # the dual (u - z) / r^2 keeps its value
                u = z + per_item(radii[k + 1] / r, u) ** 2 * (u - z)
        return found

    @staticmethod
    def places(depth: int) -> list[float]:
        """Returns where each step stands between the first, 0, and the last, 1."""
        return [k / (depth - 1) for k in range(depth)] if depth > 1 else [1.0]

    def forward(self, x_t: Tensor, sigma: Tensor, measurement: Measurement) -> Tensor:
        """Returns the last of `steps`."""
        return self.steps(x_t, sigma, measurement)[-1]

    @abstractmethod
    def step(self, k: int, at: float, u: Tensor, r: Tensor, data: DataTerm) -> Pair:
        """Returns the estimate z of a step and the state u of the next one.

        Args:
            k: The step, from 0.
            at: Its place between the first step, 0, and the last, 1.
            u: State, (B, ...).
            r: Radius, (B,).
            data: What is known of the image.
        """

    def denoised(self, k: int, v: Tensor, r: Tensor) -> Tensor:
        """Returns D_k(v, r): all that a learned part ever sees."""
        prior = self.priors[k % len(self.priors)]
        if self.tile is not None:
            prior = Tiled(prior, self.tile, min(32, self.tile // 2))
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(prior.denoise, v, r, use_reentrant=False, preserve_rng_state=False)
        return prior.denoise(v, r)

    def radii(self, places: Sequence[float], data: DataTerm) -> list[Tensor]:
        """Returns r, (B,), at some places between the first step, 0, and the last, 1."""
        h = 1.5 * self.radius(data.features)
        noise = data.features[:, 1]  # ln s_y / ||A||
        first = h[:, 0] + math.log(2 * self.sigma_data)
        last = torch.minimum(first, h[:, 1] + math.log(4) + noise)
        return [(data.sigma**-2 + (-2 * first.lerp(last, at)).exp()).rsqrt() for at in places]

    @property
    def fast(self) -> nn.Module:
        return self.priors

    @property
    def evaluations(self) -> int:
        return self.depth

    @property
    def problems(self) -> tuple[str, ...]:
        mix = self.recipe.get("mix")
        return tuple(map(str, mix)) if isinstance(mix, list) else ()

    def keeps(self, name: str, x: Tensor) -> bool:
        return not name.startswith("priors.")  # step sizes are physics

    def coded(self, name: str, x: Tensor) -> bool:
        part, _, rest = name.partition(".")
        k, _, inside = rest.partition(".net.")
        return part == "priors" and self.priors[int(k)].coded(inside, x)

    def to_card(self) -> dict[str, Any]:
        for block in self.priors:
            if not isinstance(block, EDMDenoiser):
                raise TypeError(
                    f"{type(self).__name__}: a step has a {type(block).__name__}, not an "
                    "EDMDenoiser, which alone has a weight file"
                )
        return {
            "kind": self.kind,
            "method": type(self).__name__,
            "depth": self.depth,
            "radii": "shrinking",
            "sigma_data": self.sigma_data,
            "priors": [block.to_card() for block in self.priors],
        }

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> "Unfolded":
        if card.get("radii") != "shrinking":
            raise ValueError("of an earlier kind, whose radii did not shrink: train it again")
        methods = {kind.__name__: kind for kind in (UnfoldedDR, UnfoldedHQS, UnfoldedPGM)}
        blocks = [EDMDenoiser.from_card(one) for one in card["priors"]]
        return methods[card["method"]](blocks, card["depth"], sigma_data=card["sigma_data"])

    @classmethod
    def summary(cls, card: Mapping[str, Any]) -> str:
        block = card["priors"][0]
        images = images_named(block["channels"], block.get("dtype"))
        psnr = (card.get("held_out_psnr") or {}).values()
        good = f", {sum(psnr) / len(psnr):.1f} dB on problems of its training" if psnr else ""
        return f"unfolded network of {card['depth']} steps for {images}, any operator{good}"

    def fitted(self, images: Images, *, tile: int = 1024, name: str = "") -> Fitted:
        # it holds the physics: the range is as it is, and only its blocks see tiles
        prior, notes = self, []
        if self.matched(images, name, grey=True):
            prior = self.in_grey()
            notes.append(f"grey image: shown to {name} as {self.channels} equal channels")
        if max(images.shape[1:]) > tile:
            prior = prior.with_tiles(tile)
            notes.append(
                f"denoised in overlapping tiles of {tile} pixels, physics on the whole image"
            )
        return Fitted(prior, notes)

    def quality(self, on: Evaluation) -> list[Score]:
        return on.restored(self, lambda m, g: PosteriorMean()(m, self, generator=g))


class UnfoldedDR(Unfolded):
    """Unfolded Douglas-Rachford splitting: the method of choice; arguments as for `Unfolded`.

    network = ms.unfolded.UnfoldedDR.small()  # untrained; ms.load("FILE") has weights
    denoiser = network.given(measurement)  # of p(x | x_t, y)
    """

    def __init__(
        self,
        priors: Sequence[Any],
        depth: int = 4,
        *,
        sigma_data: float = 0.5,
        recompute: bool = False,
    ) -> None:
        super().__init__(priors, depth, sigma_data=sigma_data, recompute=recompute)
        self.alpha = nn.Parameter(torch.full((2,), math.log(2.0)))  # alpha = 1
        self.beta = nn.Parameter(torch.full((2,), 4.0))  # beta = 0.98

    def step(self, k: int, at: float, u: Tensor, r: Tensor, data: DataTerm) -> Pair:
        alpha, beta = self.relaxation(at)
        x = data.prox(u, r)
        z = self.denoised(k, x + beta * (x - u), r)
        return z, u + alpha * (z - x)

    def relaxation(self, at: float) -> Pair:
        """Returns alpha and beta at a place between the first step, 0, and the last, 1."""
        wide = torch.promote_types(self.alpha.dtype, torch.float32)
        ends = (self.alpha.to(wide), self.beta.to(wide))
        alpha, beta = (first.lerp(last, at).sigmoid() for first, last in ends)
        return 1.5 * alpha, beta

    def exported(self) -> Exported:
        parts = [prior.exported() for prior in self.priors]
        steps = [self.relaxation(at) for at in self.places(self.depth)]
        about = parts[0].about | {
            "depth": str(self.depth),
            "blocks": str(len(parts)),
            "radii": "shrinking",
            "sigma_data": numbers(self.sigma_data),
            "alpha": numbers([float(alpha) for alpha, _ in steps]),
            "beta": numbers([float(beta) for _, beta in steps]),
        }
        for layer in ("first", "second"):
            linear: Any = getattr(self.radius, layer)
            about[f"radius.{layer}.weight"] = numbers(linear.weight.detach())
            about[f"radius.{layer}.bias"] = numbers(linear.bias.detach())
        return Exported([part.blocks[0] for part in parts], parts[0].channels, about)


class UnfoldedHQS(Unfolded):
    """Unfolded half-quadratic splitting, for comparison: at a fixed radius it stays biased."""

    def step(self, k: int, at: float, u: Tensor, r: Tensor, data: DataTerm) -> Pair:
        z = self.denoised(k, data.prox(u, r), r)
        return z, z


class UnfoldedPGM(Unfolded):
    """Unfolded proximal gradient, for comparison: r^2 = m = 2 sigmoid(2 tanh h) / L."""

    def radii(self, places: Sequence[float], data: DataTerm) -> list[Tensor]:
        first, last = self.radius(data.features).T
        steps = [2 * (2 * first.lerp(last, at)).sigmoid() / data.lipschitz for at in places]
        return [m.sqrt() for m in steps]

    def step(self, k: int, at: float, u: Tensor, r: Tensor, data: DataTerm) -> Pair:
        z = self.denoised(k, u - per_item(r, u) ** 2 * data.gradient(u), r)
        return z, z


def denoiser(channels: int, *widths: int) -> EDMDenoiser:
    """Returns an untrained denoiser of real images."""
    return EDMDenoiser(ConvUNet(channels, widths=widths), channels=channels)
