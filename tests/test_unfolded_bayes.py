"""A network that is trained, on images whose posterior mean is known."""

import pytest
import torch
from torch import nn

from measurand.batches import Batch
from measurand.measurement import Measurement
from measurand.noises import Gaussian as Noise
from measurand.operators import Blur, Identity, gaussian_kernel
from measurand.priors import FourierGaussian
from measurand.priors.edm import EDMDenoiser
from measurand.samplers import DiffUnfolding
from measurand.tensors import randn_like
from measurand.training.loop import train
from measurand.unfolded import UnfoldedDR
from measurand.unfolded.physics import settled
from measurand.unfolded.score_matching import posterior_loss

SIDE, LEVELS = 16, (0.05, 0.5, 5.0)
OPERATORS = [Identity((1, SIDE, SIDE)), Blur((1, SIDE, SIDE), gaussian_kernel(1.5, 9))]
NOISE = Noise(0.1)


class Filter(nn.Module):
    """F linear in the image: a periodic convolution, whose kernel depends on the level."""

    def __init__(self, side=15):
        super().__init__()
        self.side = side
        self.kernel = nn.Sequential(
            nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, side**2)
        )
        nn.init.zeros_(self.kernel[-1].weight)
        nn.init.zeros_(self.kernel[-1].bias)

    def forward(self, x, c):
        kernel = self.kernel(c[:, None]).reshape(-1, 1, self.side, self.side)
        x = nn.functional.pad(x, [self.side // 2] * 4, mode="circular").movedim(0, 1)
        return nn.functional.conv2d(x, kernel, groups=len(kernel)).movedim(0, 1)


def field():
    """A stationary Gaussian field of standard deviation 0.5."""
    f = torch.fft.fftfreq(SIDE) * SIDE
    spectrum = (1 + (f[:, None] ** 2 + f**2) / 4) ** -1.5
    return FourierGaussian(
        torch.zeros(1, 1, SIDE, SIDE), 0.25 * (spectrum / spectrum.mean())[None]
    )


def batch(step, stage):
    g = torch.Generator().manual_seed(step)
    x, operator = field().sample(64, g), OPERATORS[step % 2]
    fields = {
        "x": x,
        "sigma": torch.exp(1.6 * torch.randn(64, generator=g) - 0.8).clamp(0.002, 80.0),
        "noise": randn_like(x, g),
        "measurement": settled(Measurement(operator, NOISE, NOISE(operator(x), g))),
    }
    return Batch(fields, {"early": 0.0})


@torch.no_grad()
def over_bayes(network):
    """Squared error over that of the exact posterior mean, for each operator and level."""
    found = []
    for operator in OPERATORS:
        for level in LEVELS:
            g = torch.Generator().manual_seed(10**6)
            x = field().sample(256, g)
            m = Measurement(operator, NOISE, NOISE(operator(x), g))
            v = x + level * randn_like(x, g)
            errors = [
                (p.given(m).denoise(v, level) - x).square().mean() for p in (network, field())
            ]
            found.append(float(errors[0] / errors[1]))
    return found


@pytest.fixture(scope="module")
def networks():
    """Before and after training."""
    torch.manual_seed(0)
    before = UnfoldedDR([EDMDenoiser(Filter(), channels=1)], 4)
    torch.manual_seed(0)
    after = UnfoldedDR([EDMDenoiser(Filter(), channels=1)], 4)
    adam = torch.optim.Adam(after.parameters(), lr=4e-3, betas=(0.9, 0.99))
    train(after, batch, posterior_loss, steps=400, warmup=50, optimizer=adam)
    return before, after.requires_grad_(False)


def test_a_trained_network_is_within_three_percent_of_the_bayes_error(networks, record_property):
    before, after = (over_bayes(network) for network in networks)
    record_property("error_over_bayes", after)
    assert max(before) > 1.3 and max(after) < 1.03


def test_fewer_steps_are_worse(networks):
    """Shared weights: the error falls with the number of steps that are made."""
    _, after = networks
    x, errors = field().sample(256, torch.Generator().manual_seed(1)), []
    m = Measurement(OPERATORS[1], NOISE, NOISE(OPERATORS[1](x), torch.Generator().manual_seed(2)))
    v = x + 0.5 * randn_like(x, torch.Generator().manual_seed(3))
    for depth in (1, 2, 4, 6):
        z = after.with_depth(depth)(v, torch.full((256,), 0.5), settled(m))
        errors.append(float((z - x).square().mean()))
    # a thousandth: what is left between many steps is no longer error
    assert all(later < 1.001 * earlier for earlier, later in zip(errors, errors[1:], strict=False))
    assert errors[-1] < 0.98 * errors[0]


def test_draws_explain_the_data_as_well_as_the_truth_does(networks):
    """||A x - y|| over its expected size, of draws by the probability flow."""
    _, after = networks
    x, a = field().sample(32, torch.Generator().manual_seed(4)), OPERATORS[1]
    m = Measurement(a, NOISE, NOISE(a(x), torch.Generator().manual_seed(5)))
    draws = DiffUnfolding()(m, after, generator=torch.Generator().manual_seed(6))
    ratio = m.residual(draws).flatten(1).norm(dim=1) / (0.1 * SIDE)
    assert 0.5 < float(ratio.min()) and float(ratio.max()) < 1.5
    spread = (draws - field().given(m).mean).square().mean()
    exact = field().given(m).sample(generator=torch.Generator().manual_seed(7))
    wanted = (exact - field().given(m).mean).square().mean()
    assert float(spread / wanted) == pytest.approx(1, abs=0.12)
