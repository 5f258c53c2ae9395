import numpy as np
import pytest
import torch

from measurand.data.crops import AlignedCrops, Crops

RANDOM = np.random.default_rng(0)


def test_a_pure_function_of_seed_and_step():
    images = [RANDOM.integers(0, 256, (20 + k, 30, 3), dtype=np.uint8) for k in range(4)]
    a = Crops(images, seed=1)(7, 5, 16)
    assert a.shape == (5, 3, 16, 16) and a.dtype == torch.uint8
    crops = Crops(images, seed=1)
    crops(3, 2, 8)
    assert torch.equal(crops(7, 5, 16), a)
    assert not torch.equal(crops(8, 5, 16), a)
    assert not torch.equal(Crops(images, seed=2)(7, 5, 16), a)


@pytest.mark.parametrize(
    ("turn", "mirror", "symmetries"), [(True, True, 8), (False, True, 2), (False, False, 1)]
)
def test_crops_come_from_everywhere_in_the_symmetries_asked_for(turn, mirror, symmetries):
    """Every sample has its own value: each crop must be a symmetry of a true crop."""
    stored = [np.arange(96, dtype=np.int16).reshape(6, 8, 2), np.zeros((2, 99, 2), np.int16)]
    found = Crops(stored, turn=turn, mirror=mirror)(0, 900, 3).numpy()
    places, kinds = set(), set()
    for x in found:
        assert (x[1] == x[0] + 1).all()
        top, left = x[0].min() // 16, x[0].min() % 16 // 2
        true = stored[0][top : top + 3, left : left + 3, 0]
        every = [np.rot90(f, r) for f in (true, true[:, ::-1]) for r in range(4)]
        (kind,) = [i for i, s in enumerate(every) if np.array_equal(s, x[0])]
        places.add((top, left))
        kinds.add(kind)
    assert places == {(i, j) for i in range(4) for j in range(6)}
    assert len(kinds) == symmetries and (turn or kinds <= {0, 4})


def test_each_symmetry_is_as_likely_as_the_others():
    """The corner with the smallest value and the direction of its neighbour say which."""
    x = Crops([np.arange(25.0).reshape(5, 5)])(0, 4000, 5)[:, 0]
    corner = x[:, [0, 0, -1, -1], [0, -1, 0, -1]].argmin(1)
    upright = x[:, 0, 0].sub(x[:, 0, 1]).abs() == 1
    counts = torch.bincount(corner * 2 + upright, minlength=8)
    assert (counts - 500).abs().max() < 100


def test_images_are_chosen_by_the_number_of_their_crops():
    small, large = np.zeros((9, 8), np.uint8), np.full((16, 13), 255, np.uint8)
    tiny = np.full((7, 99), 128, np.uint8)
    x = Crops([small, large, tiny])(0, 3000, 8).float()
    assert (x > 0).float().mean().item() == pytest.approx(54 / 56, abs=0.02)  # 2 and 9 * 6 crops
    assert ((x == 0) | (x == 255)).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float32, np.complex64])
def test_samples_stay_as_they_are(dtype):
    image = RANDOM.normal(size=(4, 4)).astype(dtype)
    x = Crops([image], turn=False, mirror=False)(0, 1, 4)
    assert np.array_equal(x[0, 0].numpy(), image)


def test_crops_that_cannot_be():
    image = np.zeros((5, 7, 3), np.uint8)
    with pytest.raises(ValueError, match="32 x 32 pixels, the largest has 5 x 7"):
        Crops([image])(0, 1, 32)
    with pytest.raises(ValueError, match="0 images"):
        Crops([])
    with pytest.raises(ValueError, match=r"\('uint8', 1\), \('uint8', 3\)"):
        Crops([image, image[..., :1]])


def test_aligned_images_are_cut_at_the_same_places():
    """Each sample of the one says which sample of the other belongs to it."""
    stored = [np.arange(20 * 30).reshape(20, 30) + 1000 * k for k in range(3)]
    guides = [np.stack((-x, 2 * x), -1).astype(np.float32) for x in stored]
    crops = AlignedCrops({"x": stored, "guide": guides}, seed=4)
    found = crops(7, 50, 8)
    assert len(crops) == 3 and found["x"].shape == (50, 1, 8, 8)
    assert found["guide"].dtype == torch.float32 and found["guide"].shape == (50, 2, 8, 8)
    assert torch.equal(found["guide"][:, 0], -found["x"][:, 0].float())
    assert torch.equal(found["guide"][:, 1], 2 * found["x"][:, 0].float())
    assert torch.equal(found["x"], Crops(stored, seed=4)(7, 50, 8))  # and those of one alone


def test_images_that_are_not_aligned_are_refused():
    a, b = [np.zeros((8, 9))], [np.zeros((9, 8))]
    with pytest.raises(ValueError, match=r"'x' of sizes .*8, 9.* and 'y' of .*9, 8"):
        AlignedCrops({"x": a, "y": b})
    with pytest.raises(ValueError, match="wanted the same"):
        AlignedCrops({"x": a, "y": [*a, *a]})
