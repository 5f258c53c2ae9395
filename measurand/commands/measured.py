"""What `check` and `reconstruct` share: a measured file, and all that is said of it."""

from dataclasses import dataclass, field

from tyro.conf import Positional

from ..jobs.blind import is_family
from ..jobs.noise_kinds import Gaussian
from ..jobs.reading import Reading, said_of
from .shared import AnyOperator, File, Level, Noise

__all__ = ["Measured"]


@dataclass(frozen=True)
class Measured:
    """A measured file, and what is said of it.

    Args:
        file: The measurement.
        operator: How it was measured; unknown-blur where the kernel is not known.
        sigma: Noise standard deviation, in units of the image scaled to [-1, 1] (s grey levels of
            255 are 2 s / 255), of sinograms and k-space in units of the file; estimated from the
            data when absent.
        noise: Kind of the noise: gaussian, or poisson for counts.
        seen: A mask of the data, zero where nothing was measured; NaN is not measured either.
        saturated: Samples of the file from this value on are not used: the detector was full.
        flat: Tomography: the file holds counts, and this one those without the object.
        dark: Tomography: counts without light.
        water: Tomography: attenuation of water in the units of the image (about 0.019 per mm);
            estimates are in Hounsfield units then.
        prior: A prior that ships (`measurand priors`), a weight file, or total-variation[:WEIGHT]
            or wavelets[:WEIGHT]; the best for the problem when absent.
        theta_prior: Unknown blur: the prior of kernels; kernels-64 when absent.
        shape: Shape C H W of the image, where it does not follow from the measurement.
        value_range: Samples of an image that mean black and white, for floating-point files.
    """

    file: Positional[File]
    operator: AnyOperator
    sigma: Level = None
    noise: Noise = field(default_factory=Gaussian)
    seen: str | None = None
    saturated: float | None = None
    flat: str | None = None
    dark: str | None = None
    water: float | None = None
    prior: str | None = None
    theta_prior: str | None = None
    shape: tuple[int, int, int] | None = None
    value_range: tuple[float, float] | None = None

    @property
    def reading(self) -> Reading:
        """What is said of the file beside its operator."""
        return said_of(self)

    @property
    def blind(self) -> bool:
        """Whether the operator has unknowns.

        Raises:
            ValueError: It has none, and there is a prior of them.
        """
        blind = is_family(self.operator)
        if self.theta_prior is not None and not blind:
            raise ValueError("--theta-prior is for operators with unknowns, such as unknown-blur")
        return blind
