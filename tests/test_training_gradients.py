import pytest
import torch
from torch import nn

from measurand.batches import Batch
from measurand.training.gradients import Gradients, laid_out_as


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 1)).double()


def batch(n=7):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(n, 4, generator=g, dtype=torch.float64)
    return Batch({"x": x, "y": x[:, :1].tanh()})


def loss(net, batch):
    return (net(batch["x"]) - batch["y"]).square().mean(1)


def wanted(n=7):
    net, whole = model(), batch(n)
    losses = loss(net, whole)
    losses.mean().backward()
    return losses.detach().float(), [p.grad for p in net.parameters()]


@pytest.mark.parametrize("workers", [1, 2, 3, 16])
@pytest.mark.parametrize("micro", [None, 1, 2, 5, 100])
def test_parts_give_the_gradient_of_the_whole_batch(workers, micro):
    net = model()
    losses = Gradients(net, loss, workers=workers, micro=micro)(batch())
    whole, gradients = wanted()
    assert torch.allclose(losses, whole, rtol=1e-6)
    for p, gradient in zip(net.parameters(), gradients, strict=True):
        assert torch.allclose(p.grad, gradient, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("full"), RuntimeError("can't allocate memory: 9 bytes")]
)
def test_portions_are_halved_where_memory_runs_out(error):
    sizes = []

    def greedy(net, batch):
        sizes.append(len(batch["x"]))
        if len(batch["x"]) > 3:
            raise error
        return loss(net, batch)

    net = model()
    gradients = Gradients(net, greedy)
    losses = gradients(batch(14))
    assert sizes == [14, 7, 3, 3, 3, 3, 2] and gradients.micro == 3
    whole, right = wanted(14)
    assert torch.allclose(losses, whole, rtol=1e-6)
    for p, gradient in zip(net.parameters(), right, strict=True):
        assert torch.allclose(p.grad, gradient, rtol=1e-12, atol=1e-15)


def test_an_item_that_does_not_fit_and_other_errors_are_raised():
    def full(net, batch):
        raise torch.OutOfMemoryError("full")

    def wrong(net, batch):
        raise RuntimeError("shapes differ")

    with pytest.raises(MemoryError, match="one item of the batch does not fit: full"):
        Gradients(model(), full)(batch())
    with pytest.raises(RuntimeError, match="shapes differ"):
        Gradients(model(), wrong)(batch())


def test_layout_is_that_of_the_parameter():
    p = torch.zeros(8, 4, 3, 3).to(memory_format=torch.channels_last)
    value = torch.randn(8, 4, 3, 3)
    found = laid_out_as(p, value)
    assert found.stride() == p.stride() and torch.equal(found, value)
    assert laid_out_as(p, found) is found
    count = torch.tensor(3.0)  # the step of an optimiser
    assert laid_out_as(p, count) is count


@pytest.mark.parametrize("workers", [1, 2])
def test_denormal_numbers_are_zero_while_gradients_are_taken_and_not_after(workers):
    least = []

    def smallest(net, batch):
        least.append(float(torch.tensor(1e-39) * 1))
        return loss(net, batch)

    Gradients(model(), smallest, workers=workers)(batch())
    assert least == [0.0] * workers
    assert float(torch.tensor(1e-39) * 1) > 0


def test_one_worker_has_the_threads_of_its_process():
    seen = []

    def counting(net, batch):
        seen.append(torch.get_num_threads())
        return loss(net, batch)

    Gradients(model(), counting)(batch())
    assert seen == [torch.get_num_threads()]
