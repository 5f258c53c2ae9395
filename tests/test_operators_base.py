"""What all operators share: items, algebra, arrays at the door."""

import numpy as np
import pytest
import torch

from measurand.operators import (
    SENSE,
    Adjoint,
    CartesianMRI,
    Composed,
    FourierMask,
    Identity,
    Mask,
    ParallelCT,
    Scaled,
    Stacked,
    birdcage_maps,
)


def two_masks():
    return Mask((1, 2, 2), torch.tensor([[[[1.0, 0], [0, 2]]], [[[0, 3], [1, 0]]]]))


def wrapped():
    A = two_masks()
    return [A, A.H, 2 * A, A @ Identity((1, 2, 2)), Stacked(Identity((1, 2, 2)), A)]


@pytest.mark.parametrize("operator", wrapped(), ids=str)
def test_items_are_numbered_and_end(operator):
    x = torch.ones(2, *operator.in_shape)
    each = list(operator)
    assert len(each) == 2 and all(one.batch == 1 for one in each)
    torch.testing.assert_close(torch.cat([one(x[:1]) for one in each]), operator(x))
    torch.testing.assert_close(operator[-1](x[:1]), operator(x)[1:])
    for wrong in (2, -3):
        with pytest.raises(IndexError, match=f"got item {wrong} of a batch of 2, wanted -2 to 1"):
            operator[wrong]


def test_an_operator_that_all_items_share_has_one():
    A = Identity((1, 2, 2))
    assert len(list(A)) == 1
    with pytest.raises(IndexError, match="item 1 of a batch of 1"):
        A[1]
    assert A[1:2].batch == 1  # the items of a measurement share it


def test_norms_are_those_of_the_items():
    A = two_masks()
    assert A.norms == [2.0, 3.0] and A.norm == 3.0
    for scaled in (Scaled(A, -2.0), A.H @ A):
        assert scaled.norms == pytest.approx([one.norm for one in scaled])
    assert A[1:].norms == [3.0] and A.repeat(2).norms == [2.0, 2.0, 3.0, 3.0]
    assert Identity((3,)).norms == [pytest.approx(1.0)]


def test_algebra_reads_from_both_sides():
    A, x = two_masks(), torch.ones(2, 1, 2, 2)
    torch.testing.assert_close((A * 2)(x), (2 * A)(x))
    assert isinstance(A * -0.5, Scaled) and isinstance(A.H, Adjoint)
    with pytest.raises(TypeError, match="unsupported operand"):
        A * A
    for empty in (Composed, Stacked):
        with pytest.raises(ValueError, match=f"{empty.__name__}: got no operators, wanted at"):
            empty()


def test_arrays_are_taken_like_tensors():
    mask, angles = np.arange(8) % 2 == 0, np.linspace(0, 3, 5)
    maps = birdcage_maps((6, 8), 3)
    pairs = [
        (CartesianMRI((1, 6, 8), mask), CartesianMRI((1, 6, 8), torch.from_numpy(mask))),
        (FourierMask((2, 6, 8), mask), FourierMask((2, 6, 8), torch.from_numpy(mask))),
        (SENSE((1, 6, 8), maps.numpy(), mask), SENSE((1, 6, 8), maps, torch.from_numpy(mask))),
        (ParallelCT((1, 6, 6), angles), ParallelCT((1, 6, 6), torch.from_numpy(angles))),
        (ParallelCT((1, 6, 6), [0.0, 0.5]), ParallelCT((1, 6, 6), torch.tensor([0.0, 0.5]))),
    ]
    for found, wanted in pairs:
        x = torch.ones_like(found.blank_input())
        assert torch.equal(found(x), wanted(x))
    with pytest.raises(ValueError, match="SENSE: got maps with shape"):
        SENSE((1, 6, 8), maps[0, 0].numpy(), mask)
