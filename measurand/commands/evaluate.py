"""The command that measures trained networks: evaluate."""

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from tyro.conf import Positional

from ..data.photos import OtherKind
from ..devices import device_named
from ..domains import domain_of
from ..priors.trained import Trained
from ..problems.random import problem_of
from ..records import json_text
from ..training.log import tell
from ..training.quality import HeldOut
from ..weights.store import load
from .skipped import skips_said

__all__ = ["Evaluate"]


@dataclass(frozen=True)
class Evaluate:
    """How good a prior or a network is on a set of images.

    Mean over the images of what is measured of its kind: of a denoiser the PSNR in dB by noise
    level, of an unfolded network the PSNR of images restored from simulated measurements, of a
    flow the bits per pixel value. Images are centre crops of 256 x 256 pixels; what is random for
    image k (sorted by name) has seed k.

    Args:
        prior: A prior or a network that ships, or a weight file.
        data: A folder, a zip or a file of images of the prior's domain.
        domain: What the images are, such as 'Photographs(grey=True)'; as the card of the prior
            says, when absent.
        under: Only what is in this folder of it, such as test.
        levels: Of a denoiser, the noise levels, as standard deviations in 255ths of the range of
            the images; 15, 25 and 50 when absent.
        calibration: Of a denoiser, also compare the error that it expects with its true error.
        problems: Of an unfolded network, the kinds of problems, such as 'GaussianBlurs(low=1.0)';
            those of its training, as the card says, when absent.
        noise_range: Of an unfolded network, the smallest and the largest noise of a measurement,
            relative to the norm of the operator; as in its training when absent.
        limit: Use the first images only.
        device: cpu, cuda, or auto.
        skip_bad: Leave out files that cannot be read, and say so.
        json: Print JSON.
    """

    prior: Positional[str]
    data: Path
    domain: str | None = None
    under: str = ""
    levels: tuple[float, ...] | None = None
    calibration: bool = False
    problems: tuple[str, ...] = ()
    noise_range: tuple[float, float] | None = None
    limit: int | None = None
    device: str = "auto"
    skip_bad: bool = False
    json: bool = False

    def __call__(self, command: list[str]) -> int:
        for option, values in (("--levels", self.levels), ("--noise-range", self.noise_range)):
            if values is not None and not (values and all(0 < x < math.inf for x in values)):
                raise ValueError(f"{option}: got {values}, wants positive noise levels")
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"--limit: got {self.limit}, wants at least one image")
        device = device_named(self.device)
        network: Trained = load(self.prior, device=device)
        with skips_said():
            images = [x.to(device) for x in self.images(network)]
        mix = tuple(problem_of(text) for text in self.problems)
        scores = network.quality(
            HeldOut(images, self.levels, self.calibration, mix, self.noise_range)
        )
        if self.json:
            record = {"prior": self.prior, "images": len(images)}
            measured = {score.name: score.words for score in scores}
            found = {score.name: score.values for score in scores}
            print(json_text({**record, "measured": measured, **found}))
            return 0
        print(f"{self.prior} on {len(images)} images of {self.data}")
        for score in scores:
            print(score.words)
            for name, value in score.values.items():
                print(f"  {name}: {value:.3f}")
        return 0

    def images(self, network: Trained) -> list[Tensor]:
        """The images that the network's domain finds in the data, centre crops of 256 pixels."""
        try:
            domain = domain_of(self.domain or network.recipe.get("domain") or "")
        except ValueError as error:
            raise ValueError(
                f"{self.prior}: what are its images? {error}; say it by --domain, or measure it "
                "in Python, by measurand.training.HeldOut"
            ) from error
        theirs = domain
        with suppress(ValueError):  # a card may name the domain of another package
            theirs = domain_of(network.recipe.get("domain") or "")
        if (domain.channels, domain.dtype) != (theirs.channels, theirs.dtype):
            raise ValueError(
                f"--domain: got {domain}, of {domain.channels} channels of {domain.dtype}, "
                f"{self.prior} is of {theirs}, {theirs.channels} of {theirs.dtype}"
            )
        other = (
            f"{self.prior} is measured on {domain}; data of another kind are "
            "read by another --domain, such as 'Body()' (CT) or 'Brain()' (MRI), if the prior has "
            "their channels"
        )
        try:
            images = domain.look(self.data, self.under, skip_bad=self.skip_bad)[: self.limit]
        except OtherKind as error:
            raise ValueError(f"{error}; {other}") from error
        if not images:
            where = f"{self.data}" + (f", folder '{self.under}'" if self.under else "")
            raise ValueError(f"{where}: got no image to measure the prior on; {other}")
        if flat := sum(bool((x == x.flatten()[0]).all()) for x in images):
            tell(f"{flat} of {len(images)} images have one value everywhere, which counts too")
        return images
