"""Memory that runs out is named, and where smaller parts help the work goes on with them."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import measurand as ms
from measurand import memory
from measurand.memory import exhausted, free, lacking, tight
from measurand.priors import CallableDenoiser, Tiled
from measurand.samplers import DiffPIR

FULL = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 113246208 bytes"


class Small(CallableDenoiser):
    """A denoiser with room for so many values of an image."""

    def __init__(self, room, **options):
        super().__init__(lambda v, sigma: 0.5 * v, **options)
        self.room, self.sizes = room, []

    def denoise(self, v, sigma, condition=None):
        self.sizes.append(tuple(v.shape))
        if v.numel() > self.room:
            raise RuntimeError(FULL)
        return super().denoise(v, sigma, condition)


def test_tiles_are_halved_until_they_fit():
    prior = Small(3 * 100 * 100)
    tiled = Tiled(prior, 256, overlap=16)
    x = torch.randn(1, 3, 300, 280, generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="tiles of 256 pixels do not fit"):
        assert torch.allclose(tiled.denoise(x, 0.1), 0.5 * x, atol=1e-6)
    assert tiled.tile == 64
    tries = len(prior.sizes)
    tiled.denoise(x, 0.1)
    assert max(max(s[2:]) for s in prior.sizes[tries:]) <= 64  # and it stays so
    with pytest.raises(RuntimeError, match="allocate"), pytest.warns(UserWarning):
        Tiled(Small(10), 256, overlap=16).denoise(x, 0.1)


def test_fewer_draws_at_a_time_give_the_same_draws():
    a = ms.operators.Mask(
        (1, 8, 8), torch.rand(8, 8, generator=torch.Generator().manual_seed(0)) > 0.5
    )
    noise = ms.noises.Gaussian(sigma=0.1)
    m = ms.Measurement(
        a, noise, noise(a(torch.zeros(1, 1, 8, 8)), torch.Generator().manual_seed(1))
    )
    method = DiffPIR(steps=4)
    prior = Small(2 * 64, dtype=torch.float32)
    few = ms.restore(m, prior, method, draws=5, batch=5)
    many = ms.restore(m, Small(9 * 64, dtype=torch.float32), method, draws=5, batch=5)
    assert torch.equal(few.draws, many.draws) and {s[0] for s in prior.sizes} == {5, 2, 1}
    with pytest.raises(RuntimeError, match="allocate"):
        ms.restore(m, Small(63), method, draws=2)


def test_what_ran_out_is_told_with_its_size():
    assert (
        exhausted(RuntimeError(FULL))
        and exhausted(MemoryError())
        and not exhausted(RuntimeError("x"))
    )
    assert lacking(RuntimeError(FULL)).startswith("out of memory, 113 MB more were asked for; ")
    numpy = pytest.raises(MemoryError, np.empty, 2**41, dtype=np.uint8).value
    assert "out of memory, 2199.0 GB more" in lacking(numpy)
    assert free("meta") is None


def test_work_that_may_not_fit_is_told_before_it_begins(monkeypatch):
    room = free()
    assert (room is None or 0 < room < 2**50) and tight(1000) == ""
    monkeypatch.setattr(memory, "free", lambda device: 2_000_000_000)
    assert "may take 3.0 GB of memory, 2.0 GB are free" in tight(100_000_000)
    assert tight(60_000_000) == ""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit of addresses")
def test_a_command_that_runs_out_of_memory_says_so_in_one_line(tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (3000, 3000, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "large.png")
    words = ["reconstruct", "large.png", "--operator", "gaussian-blur", "--operator.sigma", "2"]
    words += ["--sigma", "0.04", "--prior", "total-variation", "--method", "fista", "--quiet"]
    limited = (
        "import resource, sys, torch; from measurand.cli import main; "
        "size = int(open('/proc/self/statm').read().split()[0]) * 4096; "
        "resource.setrlimit(resource.RLIMIT_AS, (size + 1_400_000_000,) * 2); "
        "sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", limited, *words], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("measurand: out of memory") and done.stderr.count("\n") == 1
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").glob("*"))
