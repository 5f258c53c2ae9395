"""What a user says of a measured file beside its operator: noise, range, what was not measured."""

from dataclasses import dataclass, field, fields
from typing import Any

from ..data.ranges import Range
from .noise_kinds import Gaussian, NoiseKind

__all__ = ["Reading", "said_of"]


@dataclass(frozen=True)
class Reading:
    """What a user says of a measured file beside its operator.

    Args:
        sigma: Noise level; see `noise_kinds.Gaussian`.
        value_range: Samples that mean black and white.
        noise: Kind of the noise.
        seen: A mask of the data, as text that names one; zero where nothing was measured.
        saturated: Samples from here on say nothing but that they are large.
        flat: Of a tomograph's counts, the file of those without the object.
        dark: The file of those without light.
        water: Attenuation of water in the units of a tomograph's image, which becomes one in
            Hounsfield units.
    """

    sigma: float | None = None
    value_range: Range | None = None
    noise: NoiseKind = field(default_factory=Gaussian)
    seen: str | None = None
    saturated: float | None = None
    flat: str | None = None
    dark: str | None = None
    water: float | None = None

    def __post_init__(self) -> None:
        if self.sigma is not None and self.noise != Gaussian():
            raise ValueError("--sigma and --noise: say one of them")
        if self.dark is not None and self.flat is None:
            raise ValueError("--dark: counts need a --flat, too")
        if self.water is not None and self.value_range is not None:
            raise ValueError("--water and --value-range: say one of them")

    @property
    def files(self) -> dict[str, str]:
        """The files that are named, by option."""
        named = {"seen": self.seen, "flat": self.flat, "dark": self.dark}
        return {key: name for key, name in named.items() if name is not None}

    @property
    def level(self) -> float | None:
        """The level of white noise; None where it is to be estimated."""
        return (
            self.noise.sigma
            if isinstance(self.noise, Gaussian) and self.sigma is None
            else self.sigma
        )


def said_of(command: Any) -> Reading:
    """Return what the options of a command say: those that have the names of the fields."""
    return Reading(**{one.name: getattr(command, one.name) for one in fields(Reading)})
