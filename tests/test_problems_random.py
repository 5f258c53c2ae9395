"""Kinds of problems: one random operator per item, a pure function of the generator."""

import inspect

import pytest
import torch

from measurand.checks.laws import adjoint_error
from measurand.problems import (
    BrainCoils,
    Denoising,
    FourierLines,
    GaussianBlurs,
    MissingBox,
    MissingPixels,
    MotionBlurs,
    SuperResolution,
    drawn,
)
from measurand.problems import random as problems

KINDS = [
    Denoising(),
    GaussianBlurs(0.5, 2.0),
    MotionBlurs(5.0, 11.0),
    MissingPixels(grain=4),
    MissingBox(),
    SuperResolution(4),
    FourierLines(),
    BrainCoils(coils=3),
]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_kind_is_tested_here():
    classes = {n for n in problems.__all__ if inspect.isclass(getattr(problems, n))}
    assert classes - {"Problems"} == {type(kind).__name__ for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_a_kind_measures_a_batch(kind):
    dtype = torch.complex64 if isinstance(kind, BrainCoils) else torch.float32
    shape = (1, 16, 20) if dtype.is_complex else (3, 16, 20)
    operator = kind.operator(shape, 3, generator())
    assert operator.batch in (1, 3) and adjoint_error(operator) < 1e-5
    x = torch.randn(3, *shape, dtype=dtype, generator=generator(1))
    measurement = drawn([kind], x, (0.02, 0.3), generator(2))
    again = drawn([kind], x, (0.02, 0.3), generator(2))
    assert torch.equal(measurement.y, again.y)
    level = measurement.sigma / measurement.operator.norm
    assert level.shape == (3,) and float(level.min()) > 0.02 and float(level.max()) < 0.3
    alone = drawn([kind], x, (0.02, 0.3), generator(3))
    assert not torch.equal(measurement.y, alone.y)
    half = measurement[1:]
    assert torch.allclose(half.residual(x[1:]), measurement.residual(x)[1:], atol=1e-5)


def test_the_noise_is_what_is_said():
    x = torch.zeros(1, 1, 200, 200)
    measurement = drawn([SuperResolution(4)], x, (0.1, 0.1), generator())
    assert float(measurement.sigma) == pytest.approx(0.1 / 4)
    assert float(measurement.y.std()) == pytest.approx(0.1 / 4, rel=0.05)


def test_each_kind_of_a_mix_is_as_likely():
    x = torch.zeros(1, 1, 16, 16)
    counts = {}
    for seed in range(300):
        name = type(drawn([Denoising(), MissingPixels()], x, (0.1, 0.1), generator(seed)).operator)
        counts[name] = counts.get(name, 0) + 1
    assert len(counts) == 2 and min(counts.values()) > 110


def test_masks_are_as_large_as_said():
    g = generator()
    pixels = MissingPixels(0.6, 0.7).operator((1, 64, 64), 4, g).mask.mean((1, 2, 3))
    assert float(pixels.min()) > 0.27 and float(pixels.max()) < 0.43
    coarse = MissingPixels(0.5, 0.5, grain=16).operator((1, 64, 64), 60, g).mask
    runs = (coarse.diff(dim=-1) != 0).float().mean((1, 2, 3))  # 1 / (2 side) of neighbours differ
    for side in (1, 2, 4, 8, 16):
        near = ((runs * 2 * side).log2().abs() < 0.5).sum()
        assert 4 <= int(near) <= 25, side
    box = MissingBox(0.5, 0.5).operator((1, 64, 64), 4, g).mask
    assert box.sum((1, 2, 3)).tolist() == [64**2 - 32**2] * 4
    rows = (box == 0).any(-1)
    assert (rows.sum((1, 2)) == 32).all() and len({tuple(r.flatten().tolist()) for r in rows}) > 1
    bars = MotionBlurs(9.0, 9.0).operator((1, 64, 64), 40, g).kernel
    i = torch.arange(bars.shape[-1]) - bars.shape[-1] // 2
    spread = (bars * (i[:, None] ** 2 + i**2)).sum((1, 2, 3))  # of a bar of 9 pixels: 81 / 12
    assert torch.allclose(spread, torch.full_like(spread, 81 / 12), atol=0.4)
    assert MotionBlurs().operator((1, 16, 16), 8, g).kernel.shape[-1] <= 15
    with pytest.raises(ValueError, match="no path of 5 pixels fits"):
        MotionBlurs().operator((1, 5, 5), 1, g)
    motion = MotionBlurs(9.0, 9.0).operator((1, 64, 64), 4, g).kernel
    assert torch.allclose(motion.sum((1, 2, 3)), torch.ones(4)) and not torch.equal(
        motion[0], motion[1]
    )


def test_gaussians_are_as_wide_and_as_elongated_as_said():
    g = generator()
    t = torch.arange(-16, 17.0)

    def moments(kernel):
        """Of each kernel: variances along its axes, the smaller one first."""
        k = kernel[:, 0]
        xx, yy = (k * t**2).sum((1, 2)), (k * t[:, None] ** 2).sum((1, 2))
        xy = (k * t * t[:, None]).sum((1, 2))
        return torch.linalg.eigvalsh(
            torch.stack((torch.stack((xx, xy)), torch.stack((xy, yy)))).movedim(-1, 0)
        )

    round_ = moments(GaussianBlurs(1.0, 4.0).operator((1, 64, 64), 20, g).kernel)
    assert torch.allclose(round_[:, 0], round_[:, 1], rtol=1e-4)
    assert 0.9 < float(round_.min()) and float(round_.max()) < 16.5
    kernel = GaussianBlurs(1.0, 4.0, elongated=True).operator((1, 64, 64), 40, g).kernel
    both = moments(kernel)
    assert 0.9 < float(both.min()) and float(both.max()) < 16.5
    assert float((both[:, 1] / both[:, 0]).median()) > 1.5
    assert torch.allclose(kernel.sum((1, 2, 3)), torch.ones(40))
