r"""Families of operators: the physics of blind problems, `y = A(theta) x + noise`.

Both the image x and the parameters theta are unknown. A family is *bilinear*: linear in the image
for fixed theta, and affine in theta for a fixed image,

    A(theta) x = B(x) theta + b(x),

so that each unknown is an ordinary linear measurement once the other is known: `at(theta)` is
A(theta), `at_image(x)` is B(x), `offset(x)` is b(x).

**Adding a family**: a file with a subclass that writes `at` and `at_image`, and `offset`,
`project`, `aligned` and `default_prior` where they are not trivial; its name in `__init__.py`. See
`defocus` for one of a page. Families of blurs are subclasses of `BlurFamily`, and write `kernel`,
`theta`, `fitted` and `periodic`, too: `BlindHQS` can search them, `summary` can sort them into
modes, and the command line can write them as pictures. For any other, `BlindPnPDM` takes
`search=None`.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from torch import Tensor

from .base import LinearOperator, Shape

__all__ = ["BlurFamily", "OperatorFamily"]


class OperatorFamily(ABC):
    """Operators A(theta) with unknown parameters, bilinear in image and parameters.

    Args:
        shape: Shape of one image, without the batch axis.
        theta_shape: Shape of one set of parameters.
        out_shape: Shape of one measurement; that of the image where None.
    Attributes:
        averages: Whether data without noise are weighted means of values of the image.
        couplings: Couplings of the parameters in the first and the last sweep of a blind sampler,
            in units of theta.
    """

    command: ClassVar[str] = ""  # name on the command line, where it is not that of the class
    averages: ClassVar[bool] = False
    couplings: ClassVar[tuple[float, float]] = (0.01, 0.0025)

    def __init__(self, shape: Shape, theta_shape: Shape, out_shape: Shape | None = None) -> None:
        self.in_shape, self.theta_shape = tuple(shape), tuple(theta_shape)
        self.out_shape = self.in_shape if out_shape is None else tuple(out_shape)

    @abstractmethod
    def at(self, theta: Tensor) -> LinearOperator:
        """Return A(theta), the operator of the image; theta has the shape (1 or B, ...)."""

    @abstractmethod
    def at_image(self, x: Tensor) -> LinearOperator:
        """Return B(x), the operator of the parameters; x has the shape (B, ...)."""

    def offset(self, x: Tensor) -> Tensor:
        """Return b(x), what an image leaves in the data at theta = 0, with shape (B, ...)."""
        return x.new_zeros(len(x), *self.out_shape)

    def project(self, theta: Tensor) -> Tensor:
        """Return the nearest parameters that are physically possible, of theta's shape."""
        return theta

    def aligned(self, x: Tensor, theta: Tensor, *copies: Tensor) -> tuple[Tensor, ...]:
        """Return an equivalent pair, the same for all pairs that no data can tell apart.

        Args:
            x: Images.
            theta: Parameters.
            copies: More images and parameters, in turns, which are changed like the first pair.
        """
        return x, theta, *copies

    def start(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return a plain initialization of image and parameters for data y."""
        return y.new_zeros(len(y), *self.in_shape), y.new_zeros(len(y), *self.theta_shape)

    def framed(self, x: Tensor) -> Tensor:
        """Return the part of images that lies inside the frame of the measurement."""
        return x

    def check_prior(self, prior: Any) -> None:
        """Raise a `ValueError` where a prior of theta is of other units than this family."""
        return None

    def default_prior(self) -> Any:
        """Return the prior of theta where nobody names one: a denoiser, or the name of weights."""
        raise ValueError(f"{self}: has no prior of its own; say one")

    @classmethod
    def counted(cls, y_shape: Shape) -> dict[str, int]:
        """Return the options that are counted in data; see `LinearOperator.counted`."""
        return {}

    @classmethod
    def image_shape(cls, y_shape: Shape) -> Shape:
        """Return the shape of the images whose measurements have a given shape.

        That of the data by default; see `LinearOperator.image_shape`.
        """
        return tuple(y_shape)

    def __repr__(self) -> str:
        def sides(shape: Shape) -> str:
            return "x".join(map(str, shape))

        return (
            f"{type(self).__name__}(image {sides(self.in_shape)}, theta "
            f"{sides(self.theta_shape)} -> {sides(self.out_shape)})"
        )


class BlurFamily(OperatorFamily):
    """Blurs by a kernel of unknown parameters.

    Attributes:
        side: Height and width of the kernels, in pixels.
    """

    averages: ClassVar[bool] = True
    side: int

    @abstractmethod
    def kernel(self, theta: Tensor) -> Tensor:
        """Return the kernels of some parameters, on the simplex, with shape (B, 1, side, side)."""

    @abstractmethod
    def theta(self, kernel: Tensor) -> Tensor:
        """Return the parameters that are nearest to a kernel (h, w) or (B, 1, h, w)."""

    @abstractmethod
    def fitted(self, x: Tensor, y: Tensor, sigma: Tensor, doubt: float) -> Tensor:
        r"""Return the parameters that explain data best, the image known up to white errors.

        The maximisation step of expectation maximisation,

            argmin over theta of  E_n ||y - A(theta) (x + doubt n)||^2 / (2 sigma^2) - ln p(theta),

        with n white of deviation one and a plain prior p. Without the errors of the image, its
        smooth parts are taken for those of the kernel.

        Args:
            x: The images, with shape (B, *in_shape).
            y: The data, with shape (B, *out_shape).
            sigma: Noise of the data, with shape () or (B,).
            doubt: Standard deviation of the errors of the images, in image units.
        Returns:
            Parameters that are physically possible, with shape (B, *theta_shape).
        """

    @abstractmethod
    def periodic(self, y: Tensor) -> Tensor:
        """Return data on the grid of the image, continued so that opposite edges touch."""

    def moved(self, by: list[list[int]], *pairs: Tensor) -> tuple[Tensor, ...]:
        """Return kernels moved down and right by some pixels, and images moved back by the same.

        Nothing moves where all kernels of the family have the same centre.

        Args:
            by: Rows and columns, one pair of numbers per item.
            pairs: Images and parameters, in turns.
        """
        return pairs
