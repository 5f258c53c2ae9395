"""Fields that belong together item by item, cut and moved as one."""

import pytest
import torch

from measurand.batches import Batch
from measurand.measurement import Measurement
from measurand.noises import Gaussian
from measurand.operators import SENSE, Mask, birdcage_maps, random_lines, random_mask
from measurand.tensors import generators, randn_like
from measurand.training.gradients import Gradients

SHAPE = (1, 6, 8)


def masks(n):
    return random_mask(SHAPE, 0.5, n=n, generator=generators(3, n))


def pairs(n=5):
    """Images, another image of each place, a measurement and a mask of each, one map for all."""
    x = randn_like(torch.zeros(n, *SHAPE), generators(0, n))
    operator = Mask(SHAPE, masks(n))
    fields = {
        "x": x,
        "radar": 2 * x,
        "measurement": Measurement(operator, Gaussian(torch.linspace(0.1, 0.5, n)), operator(x)),
        "mask": masks(n),
        "operator": operator,
        "map": torch.linspace(0, 1, 8).reshape(1, 1, 1, 8),
    }
    return Batch(fields, {"depth": 3})


def test_it_is_a_mapping_of_fields_and_shared_values():
    batch = pairs()
    assert batch.size == 5 and len(batch) == 7 and batch["depth"] == 3
    assert set(batch) == {"x", "radar", "measurement", "mask", "operator", "map", "depth"}
    assert "radar" in batch and "guide" not in batch and batch.get("guide") is None
    assert repr(batch).startswith("Batch(5 items of x, radar")
    with pytest.raises(KeyError, match="guide"):
        batch["guide"]


@pytest.mark.parametrize("part", [slice(0, None, 2), slice(1, 2), slice(3, None), slice(4)])
def test_all_fields_are_cut_at_the_same_items(part):
    whole, cut = pairs(), pairs().rows(part)
    n = len(range(5)[part])
    assert cut.size == n and cut["depth"] == 3
    assert torch.equal(cut["radar"], 2 * cut["x"]) and torch.equal(cut["x"], whole["x"][part])
    assert torch.equal(cut["map"], whole["map"])  # one for all items
    assert cut["operator"].batch == n and torch.equal(cut["operator"].mask, cut["mask"])
    m = cut["measurement"]
    assert torch.equal(m.y, cut["operator"](cut["x"]))
    assert torch.equal(m.operator.mask, cut["mask"])
    assert torch.equal(m.sigma, whole["measurement"].sigma[part])


def test_a_batch_of_one_is_cut_like_any_other():
    assert pairs(1).rows(slice(0, 1)).size == 1
    with pytest.raises(ValueError, match="got y with no item"):
        pairs(1).rows(slice(1, None))


def test_further_fields_join_and_replace():
    batch = pairs().adding({"x": torch.zeros(5, 1), "more": torch.ones(5)}, {"depth": 4})
    assert batch["x"].shape == (5, 1) and batch["more"].sum() == 5 and batch["depth"] == 4
    with pytest.raises(ValueError, match="'more': 4"):
        pairs().adding({"more": torch.ones(4)})


def test_what_cannot_be_a_batch_is_named():
    with pytest.raises(ValueError, match="wanted one size"):
        Batch({})
    with pytest.raises(ValueError, match="got x as a field and as shared"):
        Batch({"x": torch.ones(2)}, {"x": 1})
    for wrong in (torch.tensor(1.0), 3, [1, 2], "ab"):
        with pytest.raises(TypeError, match="field 'depth', wanted .* given as shared"):
            Batch({"x": torch.ones(2), "depth": wrong})


def test_moving_leaves_the_batch_where_it_was(device):
    batch = pairs()
    there = batch.to(device)
    for name in ("x", "mask", "map"):
        assert there[name].device.type == torch.device(device).type
        assert batch[name].device.type == "cpu"
    assert there["measurement"].y.device.type == there["operator"].mask.device.type
    assert batch["operator"].mask.device.type == "cpu" and there["depth"] == 3


def unseen(net, batch):
    """A loss of measurements alone: k-space with a mask per item and maps for all of them."""
    m, n = batch["measurement"], batch.size
    x_hat = torch.view_as_complex(net(torch.view_as_real(m.adjoint_y)).contiguous())
    assert len(m) == n and m.operator.mask.shape[0] == n and m.operator.maps.shape[0] == 1
    assert batch["maps"].shape[0] == 1
    return m.nll(x_hat)


@pytest.mark.parametrize(("workers", "micro"), [(1, 2), (2, None), (3, 1)])
def test_masks_per_item_give_the_gradient_of_the_whole_batch(workers, micro):
    n, maps = 5, birdcage_maps((6, 8), 3)
    mask = random_lines((6, 8), 2.0, 0.2, generator=generators(0, n))
    operator = SENSE((1, 6, 8), maps, mask)
    x = randn_like(torch.zeros(n, 1, 6, 8, dtype=torch.complex64), generators(1, n))
    measurement = Measurement(operator, Gaussian(0.5), operator(x))
    batch = Batch({"measurement": measurement, "maps": maps[None]})

    def net():
        torch.manual_seed(0)
        return torch.nn.Linear(2, 2)

    one, parted = net(), net()
    losses = Gradients(one, unseen)(batch)
    found = Gradients(parted, unseen, workers=workers, micro=micro)(batch)
    torch.testing.assert_close(found, losses)
    for a, b in zip(one.parameters(), parted.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-4)
