import json
import shutil
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from measurand import recipes
from measurand.batches import Batch
from measurand.data.crops import AlignedCrops
from measurand.domains.material import Material, generator_of
from measurand.nets import ConvUNet
from measurand.priors import Conditioned, EDMDenoiser
from measurand.priors.flow import FlowPrior
from measurand.problems import MissingPixels, drawn
from measurand.recipes import natural_color, train_recipe
from measurand.recipes.base import terms
from measurand.unfolded import FlowProximal, UnfoldedHQS, proximal_folds
from measurand.weights.store import load, load_prior
from measurand.weights.tensorfile import load_tensors

TINY = replace(
    natural_color, name="tiny", widths=(8, 8), blocks=1, batch=4, crops=(16, 32), warmup=2
)


@pytest.fixture
def data(tmp_path):
    """Six pictures, among them one to hold out."""
    random = np.random.default_rng(0)
    for k, name in enumerate(["train/a", "train/b", "train/c", "train/d", "train/e", "val/f"]):
        path = tmp_path / "photos" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (33 + k, 40, 3), dtype=np.uint8)).save(path)
    return tmp_path / "photos"


def test_a_run_leaves_weights_and_a_record(data, tmp_path, capfd):
    out = tmp_path / "runs" / "tiny"
    files = train_recipe(TINY, [data], out, steps=12)
    assert set(files) == {"tiny-0.05", "tiny-0.1"}
    asked = json.loads((out / "run.json").read_text())
    assert asked["images"] == 5 and asked["recipe"]["batch"] == 4
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == last["steps"] == 12 and last["patches"] == 48
    assert last["images_per_second"] > 0 and last["tflops"] > 0 and len(last["loss"]) == 4
    assert last["eta"] == 0 and 0 < last["psnr"]["25"] < 40
    assert "step=12" in capfd.readouterr().err
    prior = load_prior(files["tiny-0.05"])
    assert prior.card["licence"] == TINY.licence and prior.card["patches"] == 48
    assert prior.card["data"] == ["folder"] and prior.card["held_out_psnr"]["25"] > 0
    assert prior.card["images"] == 5 and prior.card["digest"] == asked["digest"]
    assert str(data) not in (text := json.dumps(prior.card)) and data.name not in text
    assert prior.denoise(torch.zeros(1, 3, 9, 11), 0.1).shape == (1, 3, 9, 11)


def test_the_card_says_how_good_and_how_sure_a_prior_is(data, tmp_path):
    (file, _) = train_recipe(TINY, [data], tmp_path / "a", steps=3, quiet=True).values()
    card = load_tensors(file)[1]
    assert card["measured_on"] == "1 held-out images" and card["recipe"]["gate"] == TINY.gate
    assert 5 < card["psnr"]["100"] < card["psnr"]["5"] < 60
    assert set(card["calibration"]) == {"0.02", "0.05", "0.1", "0.2", "0.5", "1"}
    assert all(np.isfinite(list(card["calibration"].values())))


def test_the_card_is_of_the_weights_in_the_file(data, tmp_path):
    """Gains and quality are those of weights in 8 bits."""
    (file, _) = train_recipe(TINY, [data], tmp_path / "a", steps=12, quiet=True).values()
    assert load_tensors(file)[1]["storage"] == "int8/32"
    prior = load_prior(file, dtype=torch.float32)
    gains = prior.gains
    material = TINY.domain.open([data], [], seed=TINY.seed, device="cpu", skip_bad=False)
    measured = TINY.finish(prior, material, 12)
    assert prior.gains == pytest.approx(gains, rel=0, abs=1e-9)
    assert measured["psnr"] == pytest.approx(prior.card["psnr"], abs=1e-7)
    assert measured["calibration"] == pytest.approx(prior.card["calibration"], rel=1e-6)


def test_large_crops_are_as_large_as_half_of_the_images(data, tmp_path, capfd):
    between = replace(TINY, crops=(16, 64))
    (file, _) = train_recipe(between, [data], tmp_path / "a", steps=6).values()
    assert load_tensors(file)[1]["recipe"]["crops"] == [16, 35]
    assert "large crops of 35 pixels in place of 64" in capfd.readouterr().err
    with pytest.raises(ValueError, match="48 x 48 pixels, the largest has 37 x 40"):
        train_recipe(replace(TINY, crops=(48, 64)), [data], tmp_path / "b", steps=6, quiet=True)


def test_a_run_is_resumed_only_with_what_it_began_with(data, tmp_path):
    train_recipe(TINY, [data], tmp_path / "a", steps=3, quiet=True)
    record = (tmp_path / "a" / "run.json").read_bytes()
    less = tmp_path / "less"
    (less / "train").mkdir(parents=True)
    (less / "train" / "a.png").write_bytes((data / "train" / "a.png").read_bytes())
    other = replace(TINY, lr=2 * TINY.lr)
    for recipe, paths, steps, words in (
        (TINY, [less], 3, r"other images: \['.*'\], now \['.*less'\]"),
        (TINY, [data], 4, "asked for 3 steps, and now for 4"),
        (other, [data], 3, f"lr {TINY.lr}, now {other.lr}"),
    ):
        with pytest.raises(ValueError, match=words):
            train_recipe(recipe, paths, tmp_path / "a", steps=steps, quiet=True, resume=True)
    moved = shutil.copytree(data, tmp_path / "moved")
    train_recipe(TINY, [moved], tmp_path / "a", steps=3, quiet=True, resume=True)  # the same
    with pytest.raises(ValueError, match="holds the states of a run"):
        train_recipe(TINY, [data], tmp_path / "a", steps=3, quiet=True)
    assert (tmp_path / "a" / "run.json").read_bytes() == record


@pytest.mark.parametrize(
    "change",
    [
        {"seed": -1},
        {"batch": 0},
        {"crops": (0, 0)},
        {"crops": (16, 8)},
        {"lr": -1.0},
        {"name": "a/b"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_field_out_of_its_range_is_named_before_anything_is_done(data, tmp_path, change):
    (name,) = change
    with pytest.raises(ValueError, match=f"got {name} .*, wants"):
        train_recipe(replace(TINY, **change), [data], tmp_path / "a", steps=1, quiet=True)
    assert not (tmp_path / "a").exists()


def test_without_a_length_the_budget_of_the_recipe_counts(data, tmp_path):
    short = replace(TINY, budget=2.0)
    train_recipe(short, [data], tmp_path / "a", quiet=True)
    assert json.loads((tmp_path / "a" / "run.json").read_text())["time_budget"] == 2.0


@pytest.mark.parametrize("recipe", [recipes.mri_brain, recipes.unfold_brain])
def test_what_is_done_to_images_does_not_depend_on_how_they_are_drawn(recipe):
    drawn = []

    def batch(step, n, size):
        generator = generator_of(recipe.seed, step, "cpu")
        drawn.append(torch.rand(n, generator=generator))  # as a random phase would be
        return Batch({"x": torch.zeros(n, 1, size, size, dtype=torch.complex64)})

    material = Material(batch, (), 1)
    levels = [recipe.problem(material, k, 4, 16)["sigma"].log() for k in range(100)]
    pair = torch.stack([torch.cat(drawn), torch.cat(levels)])
    assert abs(float(torch.corrcoef(pair)[0, 1])) < 0.2


def test_every_seed_step_and_stream_has_numbers_of_its_own():
    names = [
        (seed, step, stream) for seed in (0, 1, 1 << 40) for step in (0, 1) for stream in (0, 1)
    ]
    drawn = {
        torch.randn(4, generator=generator_of(seed, step, "cpu", stream=stream)).numpy().tobytes()
        for seed, step, stream in names
    }
    assert len(drawn) == len(names)


def test_a_seed_below_zero_is_refused(data, tmp_path):
    with pytest.raises(ValueError, match="got seed -1, wants 0 or more"):
        train_recipe(replace(TINY, seed=-1), [data], tmp_path / "a", steps=3)


def test_init_starts_from_a_prior(data, tmp_path):
    (first, _) = train_recipe(TINY, [data], tmp_path / "a", steps=3, quiet=True).values()
    frozen = replace(TINY, lr=0.0)
    (second, _) = train_recipe(
        frozen, [data], tmp_path / "b", steps=4, init=first, quiet=True
    ).values()
    a, b = load_tensors(first)[0], load_tensors(second)[0]
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_no_licence_no_training(data, tmp_path):
    with pytest.raises(ValueError, match="tiny: states no licence"):
        train_recipe(replace(TINY, licence=" "), [data], tmp_path / "out", steps=1)
    assert not (tmp_path / "out").exists()


def test_no_pictures_no_training(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: got no image to train on"):
        train_recipe(TINY, [tmp_path / "empty"], tmp_path / "out", steps=1)


def test_every_recipe_has_a_small_run(tmp_path):
    """All domains, tiny networks: batches, loss, quality, card and file fit together."""
    random = np.random.default_rng(0)
    images = random.uniform(0, 1, (2, 40, 40)).astype(np.float32)
    np.savez(tmp_path / "train.npz", images=images)
    np.savez(tmp_path / "hu.npz", images=2500 * images - 1000)
    (tmp_path / "pictures").mkdir()
    for k in range(2):
        picture = random.integers(0, 256, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(picture).save(tmp_path / "pictures" / f"{k}.png")
    named = [r for r in vars(recipes).values() if isinstance(r, recipes.PriorRecipe)]
    assert len({r.name for r in named}) == len(named) == 8
    for recipe in named:
        kind = type(recipe.domain).__name__
        data = {"Kernels": [], "Brain": ["train.npz"], "Body": ["hu.npz"]}.get(kind, ["pictures"])
        whole = kind in ("Faces", "Kernels")
        domain = replace(recipe.domain, side=32) if whole else recipe.domain
        small = replace(
            recipe, widths=(8, 8, 8), blocks=1, batch=2, crops=(32, 32), warmup=2, domain=domain
        )
        paths = [tmp_path / name for name in data]
        out = tmp_path / recipe.name
        files = train_recipe(small, paths, out, held_out=paths, steps=2, quiet=True)
        prior = load_prior(files[f"{recipe.name}-0.05"])
        assert prior.channels == domain.channels and prior.dtype == domain.dtype
        assert prior.card["units"] == domain.facts["units"]
        assert prior.fixed_sum == domain.fixed_sum
        x = torch.zeros(1, prior.channels, 9, 11, dtype=prior.dtype)
        assert prior.denoise(x, 0.1).shape == x.shape
        assert prior.card["held_out_psnr"]["25"] > 0
        assert len(prior.gains) == 29 and any(prior.gains)


@pytest.mark.parametrize(
    "recipe",
    [
        recipes.unfold_color,
        recipes.unfold_color_full,
        recipes.unfold_brain,
        replace(recipes.unfold_color, method=UnfoldedHQS),
    ],
)
def test_an_unfolded_network_is_trained_from_a_prior(recipe, data, tmp_path):
    """Both mixes, tiny blocks: the run starts as its prior inside the steps, and is one file."""
    paths = [data]
    if recipe.domain.dtype.is_complex:
        np.savez(
            tmp_path / "train.npz", images=np.random.default_rng(0).uniform(0, 1, (2, 40, 40))
        )
        paths = [tmp_path / "train.npz"]
    block = replace(recipe.prior, widths=(8, 8), blocks=1, batch=2, crops=(16, 16), warmup=1)
    (start, _) = train_recipe(block, paths, tmp_path / "p", steps=2, quiet=True).values()
    small = replace(
        recipe, prior=block, start=str(start), depth=2, batch=2, crops=(16, 24), warmup=1, early=3
    )
    out = tmp_path / "u"
    (first, _) = train_recipe(
        small, paths, out, held_out=paths, steps=6, workers=2, quiet=True
    ).values()
    network = load(first)
    assert type(network) is recipe.method and network.card["recipe"]["method"] in str(
        type(network)
    )
    assert network.depth == 2 and network.channels == recipe.domain.channels
    assert set(network.card["held_out_psnr"]) == {repr(kind) for kind in recipe.mix}
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["skipped"] == 0 and last["images_per_second"] > 0
    weights, trained = load_prior(start).net.state_dict(), network.priors[0].net.state_dict()
    assert all(v.shape == trained[k].shape for k, v in weights.items())
    assert len(network.priors) == (1 if recipe.shared else 2)
    assert network.card["init"]["file"] == start.stem
    assert network.card["init"]["licence"] == recipe.licence
    if recipe.shared:
        assert replace(small, depth=3).new(first).depth == 3
    else:
        with pytest.raises(ValueError, match="its 2 steps have a prior each"):
            replace(small, depth=3).new(first)
    with pytest.raises(ValueError, match="holds another network than recipe .*, in: .*prior"):
        replace(small, prior=replace(block, widths=(8, 16))).new(first)
    frozen = replace(small, lr=0.0)
    (again, _) = train_recipe(
        frozen, paths, tmp_path / "v", steps=2, init=first, quiet=True
    ).values()
    a, b = load_tensors(first)[0], load_tensors(again)[0]
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_flows_are_trained_by_likelihood_and_then_unfolded(data, tmp_path):
    """Both kinds of recipes, tiny: kappa is measured, frozen flows stay, knobs move, one file."""
    flow = replace(
        recipes.flow_color, levels=2, steps=1, hidden=8, batch=4, crops=(16, 16), warmup=1
    )
    (start, _) = train_recipe(flow, [data], tmp_path / "f", held_out=[data], steps=30).values()
    prior = load(start, FlowPrior)
    assert prior.kappa[0].gt(0).all() and prior.shape == (3, 16, 16) and prior.flow.initialized
    lines = [json.loads(s) for s in (tmp_path / "f" / "metrics.jsonl").read_text().splitlines()]
    assert 0 < prior.card["least_pivot"] < 10
    assert prior.card["held_out_bits"]["bits"] < 8.5 and lines[-1]["skipped"] == 0
    assert lines[-1]["bits"] < 12 and "psnr" not in lines[-1]
    assert lines[-1]["loss"] > 0  # one number: a flow knows no noise level
    again = flow.new(start)
    assert all(torch.equal(v, prior.state_dict()[k]) for k, v in again.state_dict().items())
    with pytest.raises(ValueError, match="wants {'channels': 3, 'levels': 2, 'steps': 2"):
        replace(flow, steps=2).new(start)
    for k, recipe in enumerate(
        [recipes.flow_denoise, recipes.flow_inpaint, replace(recipes.flow_deblur, frozen=True)]
    ):
        own = replace(recipe, start=str(start), depth=2, batch=2, crops=(16, 16), warmup=1)
        (file, _) = train_recipe(
            own, [data], tmp_path / str(k), held_out=[data], steps=4, workers=2, quiet=True
        ).values()
        network = load(file, FlowProximal)
        assert network.card["held_out_psnr"].keys() == {repr(recipe.kind)}
        assert network.card["init"]["file"] == start.stem
        with pytest.raises(ValueError, match="holds another network than recipe .*: folds"):
            replace(own, depth=3).new(file)
        untrained = proximal_folds(prior, 2)[0].prior_step.tau
        assert not torch.equal(network.folds[0].prior_step.tau, untrained)
        with torch.no_grad():
            x = torch.rand(1, 3, 16, 16)
            moved = network.priors[0].log_prob(x) - prior.log_prob(x)
        assert (float(moved.abs()) > 1e-3) != recipe.frozen


def zeros(step, n, size):
    return Batch({"x": torch.zeros(n, 3, size, size)})


def test_the_batches_of_an_unfolded_recipe_follow_from_the_step():
    recipe = replace(recipes.unfold_color, batch=4, crops=(16, 32))
    material = Material(zeros, (), 1)
    kinds = set()
    for step in range(12):
        batch, again = (recipe.batches(material)(step, 0) for _ in range(2))
        assert torch.equal(batch["measurement"].y, again["measurement"].y)
        assert torch.equal(batch["sigma"], again["sigma"])
        kinds.add(repr(batch["measurement"].operator).split("(")[0])
    assert kinds == {"Identity", "Blur", "Mask"}
    assert len(recipe.batches(material)(0, 1)["x"]) == 1


def test_steps_are_drawn():
    recipe = replace(recipes.unfold_color, batch=2, crops=(16, 16), depths=(3, 6))
    material = Material(zeros, (), 1)
    drawn = {recipe.problem(material, step, 2, 16)["depth"] for step in range(40)}
    assert drawn == {3, 4, 5, 6}
    fixed = replace(recipe, depths=None, depth=5)
    assert fixed.problem(material, 0, 2, 16)["depth"] == 5
    with pytest.raises(ValueError, match=r"got depths \(6, 3\)"):
        replace(recipe, depths=(6, 3))
    with pytest.raises(ValueError, match="of a block that all share"):
        replace(recipe, shared=False)


PLACES = np.random.default_rng(3).normal(0, 0.4, (4, 40, 40)).astype(np.float32)


class Pairs:
    """Images, and beside each one that is twice as bright, in the same place."""

    channels, dtype, fixed_sum, facts = 1, torch.float32, None, {"units": "none"}

    def open(self, data, held_out, *, seed, device, skip_bad):
        crops = AlignedCrops({"x": list(PLACES), "condition": list(2 * PLACES)}, seed=seed)
        kept = torch.from_numpy(PLACES[:1, None])
        case = Batch({"x": kept, "condition": 2 * kept})
        return Material(lambda step, n, size: Batch(crops(step, n, size)), (case,), len(crops))


class Scans(Pairs):
    """Measurements alone, each with a mask of its own; a few are held out."""

    def open(self, data, held_out, *, seed, device, skip_bad):
        def batch(step, n, size):
            generator = generator_of(seed, step, device)
            x = torch.from_numpy(PLACES[:1, None, :size, :size]).expand(n, -1, -1, -1)
            return Batch({"measurement": drawn([MissingPixels()], x, (0.05, 0.05), generator)})

        return Material(batch, tuple(batch(10**6 + k, 1, 24) for k in range(3)), 4)


@dataclass(frozen=True)
class FromPairs(recipes.PriorRecipe):
    """A denoiser that sees the other image."""

    def new(self, init=None):
        torch.manual_seed(self.seed)
        return EDMDenoiser(ConvUNet(1, widths=(8, 8), blocks=1, condition_channels=1), channels=1)

    @torch.no_grad()
    def quality(self, model, held_out, dtype):
        (case,) = held_out
        error = Conditioned(model, case["condition"]).denoise(case["x"], 0.1) - case["x"]
        return {"psnr": float(-10 * error.square().mean().log10())}

    def finish(self, model, material, steps):
        return {}


@dataclass(frozen=True)
class FromScans(FromPairs):
    """A denoiser that is trained without a single image."""

    measure = "misfit"

    def new(self, init=None):
        return replace(TINY, domain=replace(TINY.domain, grey=True)).new()

    def problem(self, material, step, n, size):
        return material.batch(step, n, size)

    def level(self, batch):
        return None

    def loss(self, model, batch):
        m = batch["measurement"]
        return m.nll(model.denoise(m.adjoint_y, 0.5)) / m.y[0].numel()

    def quality(self, model, held_out, dtype):
        with torch.no_grad():
            return {"misfit": float(sum(self.loss(model, case).mean() for case in held_out))}


@pytest.mark.parametrize("kind", [FromPairs, FromScans])
def test_pairs_and_measurements_are_trained_on_and_held_out(kind, tmp_path):
    domain = Pairs() if kind is FromPairs else Scans()
    recipe = kind(
        "own", "made by a program", domain, batch=4, crops=(16, 24), warmup=2, widths_ema=(0.1,)
    )
    files = train_recipe(recipe, [], tmp_path / "a", steps=30, workers=2, micro=1, quiet=True)
    last = json.loads((tmp_path / "a" / "metrics.jsonl").read_text().splitlines()[-1])
    card = load_tensors(files["own-0.1"])[1]
    assert isinstance(last[recipe.measure], float) and last["skipped"] == 0
    assert set(card[f"held_out_{recipe.measure}"]) == {recipe.measure}
    assert isinstance(last["loss"], list) == (kind is FromPairs)
    if kind is FromScans:
        assert "psnr" not in last
    else:  # images are replaced by smooth ones only where nothing is aligned with them
        one = recipe.problem(domain.open([], [], seed=0, device="cpu", skip_bad=False), 1, 64, 16)
        assert torch.equal(one["condition"], 2 * one["x"])


def test_weights_have_the_terms_of_what_they_started_from():
    research = {"file": "colour@1", "licence": "photographs; research use only"}
    both = terms("CT (CC BY)", research)
    assert both == "CT (CC BY); weights started from colour@1 (photographs; research use only)"
    assert terms("CT (CC BY)", {"file": "ct@2", "licence": both}) == both  # trained on: kept
    assert terms("CT (CC BY)", {"file": "ct@1", "licence": "CT (CC BY)"}) == "CT (CC BY)"
    assert terms("CT (CC BY)", None) == "CT (CC BY)"
