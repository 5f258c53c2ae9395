import math

import pytest
import torch
from torch import nn

from measurand.training.ema import EMA


def weights(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize(("width", "gamma"), [(0.05, 16.97), (0.10, 6.94)])
def test_ema_has_its_profile(width, gamma):
    """For theta(t) = t the average of t^gamma weights is (gamma + 1) / (gamma + 2) t, exactly
    prod beta for the rest; the width is that of the window."""
    p = nn.Linear(1, 1, bias=False).double()
    square = nn.Linear(1, 1, bias=False).double()
    ema, second = EMA(p, width, every=1), EMA(square, width, every=1)
    assert ema.gamma == pytest.approx(gamma, abs=0.01)
    n = 4000
    for step in range(1, n + 1):
        with torch.no_grad():
            p.weight.fill_(step)
            square.weight.fill_(step**2)
        ema.update(step)
        second.update(step)
    mean = float(ema.values["weight"])
    assert mean / n == pytest.approx((ema.gamma + 1) / (ema.gamma + 2), abs=2 / n)
    spread = math.sqrt(float(second.values["weight"]) - mean**2)
    assert spread / n == pytest.approx(width, rel=0.01)


def test_ema_against_the_closed_form():
    """w_n = sum_t (1 - beta_t) prod_{s > t} beta_s theta_t, with an update every two steps."""
    p = nn.Linear(1, 1, bias=False).double()
    ema = EMA(p, 0.1, every=2)
    theta = torch.randn(40, generator=torch.Generator().manual_seed(0)).double()
    beta = [(1 - 2 / t) ** (ema.gamma + 1) for t in range(2, 41, 2)]
    for step in range(1, 41):
        with torch.no_grad():
            p.weight.fill_(theta[step - 1])
        ema.update(step)
    wanted = sum(
        (1 - beta[k]) * math.prod(beta[k + 1 :]) * float(theta[2 * k + 1]) for k in range(20)
    )
    assert float(ema.values["weight"]) == pytest.approx(wanted, rel=1e-12)


def test_averaged_weights_are_applied_and_taken_back():
    net = nn.Linear(4, 8)
    ema, own = EMA(net, 0.1), weights(net)
    for value in ema.values.values():
        value.fill_(7.0)
    with pytest.raises(KeyError), ema.applied():
        assert (weights(net) == 7).all()
        raise KeyError
    assert torch.equal(weights(net), own)
