import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from measurand.weights.quantized import dequantize, quantize
from measurand.weights.tensorfile import DamagedFile, load_tensors, save_tensors

SHAPES = [
    (4, 32),
    (5, 7),
    (1, 1),
    (3, 33),
    (6, 64, 1, 1),
    (5, 3, 3, 3),
    (2, 4, 2, 2, 2),
    (3, 0),
    (0, 4),
]


def normal(shape, seed=0, scale=0.05):
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def both(x):
    """The weights that come back, and the scale of each entry."""
    stored = quantize({"w": x}, ["w"])
    rows = stored["w.scale"].double().repeat_interleave(32, 1)[:, : x[:1].numel()]
    return dequantize(stored)["w"], rows.reshape(x.shape)


def by_definition(codes, scales):
    """The equation of the module, entry by entry."""
    flat = codes.reshape(len(codes), math.prod(codes.shape[1:]))
    found = torch.empty(flat.shape)
    for i in range(flat.shape[0]):
        for j in range(flat.shape[1]):
            found[i, j] = int(flat[i, j]) * float(scales[i, j // 32])
    return found.reshape(codes.shape)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_layout_is_that_of_the_page(shape):
    x = normal(shape)
    stored = quantize({"w": x}, ["w"])
    inputs = math.prod(shape[1:])
    assert set(stored) == {"w", "w.scale"}
    assert stored["w"].dtype == torch.int8 and stored["w"].shape == x.shape
    assert stored["w.scale"].dtype == torch.bfloat16
    assert stored["w.scale"].shape == (shape[0], -(-inputs // 32))
    again = dequantize(stored)
    assert set(again) == {"w"} and again["w"].dtype == torch.float32
    assert torch.equal(again["w"], by_definition(stored["w"], stored["w.scale"]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_an_error_is_at_most_half_a_scale(shape, dtype):
    x = normal(shape).to(dtype)
    found, scale = both(x)
    assert ((found.double() - x.double()).abs() <= scale / 2).all()


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=40),
    st.integers(-120, 20),
)
def test_an_error_is_at_most_half_a_scale_whatever_the_numbers(numbers, exponent):
    """And at most m / 239, m the largest magnitude, where the scale is a normal number."""
    x = torch.tensor([numbers]) * 2.0**exponent
    found, scale = both(x)
    error = (found.double() - x.double()).abs()
    assert (error <= scale / 2).all()
    for group, wrong in zip(x[0].split(32), error[0].split(32), strict=True):
        m = float(group.abs().max())
        assert m < 2.0**-119 or float(wrong.max()) <= m / 239


def test_the_largest_code_uses_the_byte():
    codes = quantize({"w": normal((200, 96))}, ["w"])["w"]
    largest = codes.reshape(200, 3, 32).abs().amax(-1)
    assert largest.min() >= 120 and largest.max() <= 127 and (codes > -128).all()


@pytest.mark.parametrize("m", [127.5, 127.7, 128.1])
def test_no_weight_is_clipped(m):
    """Although all others would be exact with a scale of 1."""
    x = torch.tensor([[m, *range(30, 61)]])
    found, scale = both(x)
    assert ((found.double() - x.double()).abs() <= scale / 2).all()


@pytest.mark.parametrize("k", [0, 2, 60, 120])
def test_what_is_next_to_a_tie_goes_to_the_nearest(k):
    for other in (k + 0.5 + 1e-12, -k - 0.5 - 1e-12):
        x = torch.tensor([[127.0, other, *range(90, 120)]], dtype=torch.float64)
        found, scale = both(x)
        assert (scale == 1).all() and ((found - x).abs() <= 0.5).all()


def test_the_scale_has_the_least_squared_error():
    x = normal((50, 32), seed=3)
    stored = quantize({"w": x}, ["w"])
    error = (dequantize(stored)["w"] - x).square().sum(1)
    for largest in torch.linspace(120, 127, 29):
        scale = (x.abs().amax(1, keepdim=True) / largest).bfloat16().float()
        other = (x - (x / scale).round().clamp(-127, 127) * scale).square().sum(1)
        assert (error <= other * (1 + 1e-6)).all()
    plain = x.abs().amax(1, keepdim=True) / 127
    usual = (x - (x / plain).round() * plain).square().sum()
    assert error.sum() < 0.9 * usual


def test_groups_do_not_see_each_other():
    """A large weight spoils the 32 of its group alone."""
    x = normal((2, 100))
    alone, _ = both(x)
    changed = x.clone()
    changed[0, 40] = 1e3
    found, _ = both(changed)
    same = torch.ones(2, 100, dtype=torch.bool)
    same[0, 32:64] = False
    assert torch.equal(found[same], alone[same]) and not torch.equal(found, alone)


def test_zeros_are_exact():
    x = normal((4, 70))
    x[1], x[2, 32:64], x[3, ::2] = 0, 0, 0
    x[0, 0] = -0.0
    found, _ = both(x)
    assert (found[x == 0] == 0).all()
    assert (both(torch.zeros(3, 5, 3, 3))[0] == 0).all()


@pytest.mark.parametrize("value", [1.0, -0.3, 1e-30, 3e37, 1e-41])
def test_constant_tensors_have_a_small_error(value):
    x = torch.full((3, 40), value)
    found, scale = both(x)
    assert ((found.double() - x.double()).abs() <= scale / 2).all()
    assert (found == found[0, 0]).all() and scale.min() >= 2.0**-126  # a normal number
    if abs(value) > 1e-35:
        assert ((found / x - 1).abs() <= 1 / 239).all()


def test_what_was_stored_before_is_stored_without_error():
    x = torch.cat((normal((300, 96)), normal((300, 96), 1, 1e-3) ** 3))
    once, _ = both(x)
    assert torch.equal(both(once)[0], once)


def test_the_same_weights_give_the_same_bits():
    x = normal((64, 32, 3, 3))
    one, two = (quantize({"w": each}, ["w"]) for each in (x, x.clone()))
    strided = x.to(memory_format=torch.channels_last)
    three = quantize({"w": strided}, {"w"})
    rows = quantize({"w": x[10:20]}, ["w"])
    for name, value in one.items():
        assert torch.equal(value, two[name]) and torch.equal(value, three[name])
        assert torch.equal(value[10:20], rows[name])
        assert three[name].is_contiguous()


def test_other_tensors_are_returned_as_they_are():
    x = {"w": normal((3, 4)), "bias": normal((3,)).bfloat16(), "step": torch.tensor(3)}
    stored = quantize(x, ["w"])
    assert stored["bias"] is x["bias"] and stored["step"] is x["step"]
    again = dequantize(stored)
    assert set(again) == set(x) and again["bias"] is x["bias"] and again["step"] is x["step"]
    assert quantize(x, []) == x


def test_weights_that_learn_are_taken_without_their_gradients():
    x = normal((3, 4)).requires_grad_()
    stored = quantize({"w": x}, ["w"])
    assert not stored["w.scale"].requires_grad and not dequantize(stored)["w"].requires_grad


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), 3e38])
def test_numbers_that_are_not_finite_are_refused(bad):
    x = normal((3, 40))
    x[1, 35] = bad
    with pytest.raises(ValueError, match=r"layer\.weight .*not finite"):
        quantize({"layer.weight": x}, ["layer.weight"])


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"v": torch.ones(2, 2)}, "no tensors called w"),
        ({"w": torch.ones(2)}, r"w has shape \(2,\)"),
        ({"w": torch.ones(2, 2, dtype=torch.long)}, "torch.int64"),
        ({"w": torch.ones(2, 2, dtype=torch.complex64)}, "torch.complex64"),
        ({"w": torch.ones(2, 2), "w.scale": torch.ones(2)}, "name of another"),
        ({"w": torch.ones(2, 2), "v": torch.ones(2, dtype=torch.int8)}, "v is int8"),
    ],
)
def test_what_cannot_be_stored_is_refused(tensors, message):
    with pytest.raises(ValueError, match=message):
        quantize(tensors, ["w"])


def test_codes_need_their_scales():
    stored = quantize({"w": normal((3, 40))}, ["w"])
    for scales in (
        None,
        stored["w.scale"].float(),
        stored["w.scale"][:, :1],
        stored["w.scale"].flatten(),
    ):
        changed = {"w": stored["w"]} | ({} if scales is None else {"w.scale": scales})
        with pytest.raises(ValueError, match="w has scales"):
            dequantize(changed)


@pytest.mark.parametrize("name", ["w", "w.scale"])
def test_every_flipped_bit_of_codes_and_scales_is_detected(name, tmp_path, injected):
    path = tmp_path / "x.safetensors"
    stored = quantize({"w": normal((6, 5, 3, 3)), "bias": normal((6,))}, ["w"])
    save_tensors(path, stored, {"storage": "int8/32"})
    again, card = load_tensors(path)
    assert card["storage"] == "int8/32" and all(torch.equal(again[k], stored[k]) for k in stored)
    raw = stored[name].view(torch.uint8).numpy().tobytes()
    content = path.read_bytes()
    start = content.rindex(raw)
    bits = [(k, bit) for k in range(len(raw)) for bit in range(8)]
    chosen = random.Random(0).sample(bits, min(len(bits), 300))
    injected("7: bit flips in weight files", len(chosen))
    for k, bit in chosen:
        changed = bytearray(content)
        changed[start + k] ^= 1 << bit
        path.write_bytes(changed)
        with pytest.raises(DamagedFile, match=f"tensor {name} differs"):
            load_tensors(path)
