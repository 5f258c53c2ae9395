import torch

from measurand.priors.descent import descend
from measurand.tensors import generators, inner

F64 = torch.float64


def quadratic(n=12, items=3):
    """Items of different conditioning, and their minimisers."""
    generator = generators(0, 1)[0]
    root = torch.randn(items, n, n, generator=generator, dtype=F64)
    scales = torch.tensor([1.0, 10.0, 100.0], dtype=F64)[:, None, None]
    matrix = root @ root.mT + scales * torch.eye(n, dtype=F64)
    wanted = torch.randn(items, n, generator=generator, dtype=F64)

    def objective(x):
        d = x - wanted
        return inner(d, (matrix @ d[..., None])[..., 0]) / 2

    return objective, matrix, wanted


def test_it_finds_the_minimiser_of_every_item():
    objective, matrix, wanted = quadratic()
    found = descend(objective, torch.zeros_like(wanted), torch.ones_like(wanted), 80)
    assert (found - wanted).abs().max() < 1e-6


def test_the_first_step_follows_the_metric():
    """With the inverse of a diagonal Hessian it is Newton's, and ends there."""
    weight = torch.tensor([[1.0, 5.0, 25.0]], dtype=F64)
    start = torch.tensor([[1.0, -2.0, 3.0]], dtype=F64)
    found = descend(lambda x: (weight * x.square()).sum(1) / 2, start, 1 / weight, 1)
    assert found.abs().max() < 1e-12


def test_it_never_goes_up_and_items_are_independent():
    def objective(x):  # Rosenbrock's valley
        return (1 - x[:, 0]).square() + 100 * (x[:, 1] - x[:, 0].square()).square()

    start = torch.tensor([[-1.2, 1.0], [0.0, 3.0]], dtype=F64)
    metric = torch.ones_like(start)
    found = [descend(objective, start, metric, n) for n in range(1, 60)]
    values = torch.stack([objective(x) for x in found])
    assert (values.diff(dim=0) <= 0).all()
    assert torch.allclose(found[-1], torch.ones_like(start), atol=1e-4)
    alone = descend(objective, start[1:], metric[1:], 20)
    assert torch.allclose(alone, found[19][1:], atol=1e-10)


def test_descent_stays_where_every_step_goes_up():
    start = torch.tensor([[1.0, 2.0]], dtype=F64)
    wall = descend(
        lambda x: torch.where((x == start).all(1), x.sum(1), torch.nan), start, start, 3
    )
    assert torch.equal(wall, start)
