r"""Methods: what a solver and a sampler have in common.

A method is a frozen value. Its fields are its settings; called with a measurement and a prior, it
returns the image, or a draw of it. A new one is a subclass that writes its loop in `iterate`,
which yields a `Step` after every step and returns the result:

    @dataclass(frozen=True)
    class Alternating(Method):
        needs: ClassVar[tuple[type, ...]] = (Denoiser,)

        steps: int = 10

        def iterate(self, measurement, prior, x, generator):
            for k in range(self.steps):
                u = measurement.prox(x, 0.1)
                x = prior.denoise(u, 0.1)
                yield Step(k, 0.1, u, x)
            return x

Everything else that happens in a call is written here, once: the check that prior, measurement and
start fit together, the start, the generators, the callback, and the check that the result is
finite. A call runs under `torch.no_grad`; a method that differentiates through the prior says
`with torch.enable_grad()` around those lines.

**Several unknowns** (an image and a blur kernel) travel as one `NamedTuple` of tensors, in `x`, in
every `Step` and in the result. Such a method has a `start` of its own; checks and messages follow
the names of the fields.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from .measurement import Measurement
from .priors.capabilities import Denoiser, require
from .start import first_guess
from .tensors import Generators, as_generators

__all__ = [
    "Callback",
    "Iterates",
    "Method",
    "Sampler",
    "Step",
    "Unknown",
    "finished",
    "finite",
    "fitting",
    "given_or_zeros",
]

Unknown = Any  # a Tensor with shape (B, ...), or a NamedTuple of several


class Step(NamedTuple):
    """What a method tells its callback after each step.

    Attributes:
        step: Number of the step, from 0.
        level: Noise level of the step, in image units; of a solver one per item, with shape (B,),
            where the items of the measurement differ in noise or norm.
        x: The iterate, with shape (B, ...).
        x0: The current estimate of the clean image, with the shape of `x`.
    """

    step: int
    level: float | Tensor
    x: Unknown
    x0: Unknown


Callback = Callable[[Step], None] | None
Iterates = Generator[Step, None, Unknown]


@dataclass(frozen=True)
class Method(ABC):
    """A method, which makes an image of a measurement and a prior: one estimate per item.

    Attributes:
        needs: Capabilities of a prior (protocols), of which one is enough; empty where the method
            has no use for a prior.
        draws: Whether a result is a draw of the posterior, not an estimate.
        command: Name on the command line; empty where it is not there.
    """

    needs: ClassVar[tuple[type, ...]] = (Denoiser,)
    draws: ClassVar[bool] = False
    command: ClassVar[str] = ""

    @property
    def rounds(self) -> int | None:
        """Number of steps that a call reports, that of the setting `steps` by default.

        None where it is not known before.
        """
        return getattr(self, "steps", None)

    def settled(self, measurement: Any) -> Self:
        """Return the method with every setting that was left to the measurement (None)."""
        return self

    @abstractmethod
    def iterate(self, measurement: Any, prior: Any, x: Unknown, generator: Generators) -> Iterates:
        """Yields a `Step` after every step and returns the result, with shape (B, ...).

        Args:
            measurement: What was seen.
            prior: What has one of the capabilities that the method needs.
            x: What `start` returned.
            generator: One generator, or one per item.
        """

    def check(self, measurement: Any, prior: Any) -> None:
        """Raise an error where prior and measurement do not fit the method or each other."""
        if self.needs:
            require(prior, *self.needs, by=self, images=measurement.operator.in_dtype)

    def start(self, measurement: Any, x0: Unknown | None) -> Unknown:
        """Return where the loop starts: the image given, or `first_guess`."""
        if x0 is None:
            return first_guess(measurement)
        return fitting(x0, measurement.adjoint_y, by=self)

    def __call__(
        self,
        measurement: Any,
        prior: Any,
        *,
        x0: Unknown | None = None,
        generator: Generators = None,
        callback: Callback = None,
    ) -> Unknown:
        """Return one image per item of the measurement.

        Args:
            measurement: What was seen, a `Measurement`.
            prior: What has one of the capabilities that the method needs (`needs`).
            x0: Where to start, with shape (B, ...).
            generator: One generator, one per item, or None for seed 0.
            callback: Called with a `Step` after every step.
        Returns:
            The images, with shape (B, ...).
        Raises:
            TypeError: The prior lacks what the method needs, or there is no measurement.
            ValueError: x0 or the generators do not fit the measurement, or x0 is not finite.
            FloatingPointError: The result is not finite; the operator, the prior or the settings
                are named as the cause.
        """
        if isinstance(measurement, Tensor | nn.Module):  # data alone; a prior in its place
            raise TypeError(
                f"{type(self).__name__}: got a {type(measurement).__name__} as the measurement, "
                "wanted measurand.Measurement(operator, noise, y)"
            )
        # inference mode would forbid a gradient through the prior
        with torch.inference_mode(False), torch.no_grad():
            self.check(measurement, prior)
            x = self.start(measurement, x0)
            if x0 is not None:
                _check_start(x0, by=self)
            generator = as_generators(generator, next(iter(parts(x).values())))
            steps = self.settled(measurement).iterate(measurement, prior, x, generator)
            if not isinstance(steps, Generator):
                raise TypeError(
                    f"{type(self).__name__}.iterate: got a {type(steps).__name__}, wanted a loop "
                    "that yields a Step after every step and returns the result"
                )
            try:
                return finite(emptied(finished(steps, callback), measurement), by=self)
            except FloatingPointError as error:
                if _answers(measurement):
                    raise
                raise FloatingPointError(
                    f"{self}: {measurement.operator} returns values that are NaN or infinite, or "
                    "too large for its precision"
                ) from error


@dataclass(frozen=True)
class Sampler(Method):
    """A method that draws from the posterior, one draw per item; it starts around zero."""

    draws: ClassVar[bool] = True

    def start(self, measurement: Any, x0: Unknown | None) -> Unknown:
        """Return the mean of the first state: the image given, or zero."""
        return given_or_zeros(x0, measurement, by=self)


def finished(steps: Iterates, callback: Callback = None) -> Unknown:
    """Return the result at the end of some steps, each of which the callback sees."""
    with closing(steps):  # an error in the callback ends the loop at once
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                return end.value
            if callback is not None:
                with torch.no_grad():  # also where a loop yields inside `enable_grad`
                    callback(step)


def emptied(x: Unknown, measurement: Any) -> Unknown:
    """Return the result with zeros where the operator knows that there is nothing (`air`)."""
    # a blind measurement has a family of operators
    air = measurement.operator.air() if isinstance(measurement, Measurement) else None
    return x if air is None else x.masked_fill(air, 0)


def finite(x: Unknown, *, by: object) -> Unknown:
    """Return the result of a method, after a check that it is a number everywhere.

    Args:
        x: What the method found.
        by: The method, for the message.
    Returns:
        The same; a `FloatingPointError` where some value is not finite.
    """
    for name, part in parts(x).items():
        good = torch.isfinite(part).flatten(1).all(1)
        if not bool(good.all()):
            raise FloatingPointError(
                f"{by}: the {name and f'{name} of the '}result is not finite for "
                f"{int((~good).sum())} of {len(good)} items; the prior returned something that is "
                "not a number, or the step is too long"
            )
    return x


def _answers(measurement: Any) -> bool:
    """Whether an operator maps ones to finite data and back; asked once a result is lost."""
    if not isinstance(measurement, Measurement):  # none, or a family of operators
        return True
    seen = measurement.operator(torch.ones_like(measurement.adjoint_y))
    back = measurement.operator.adjoint(torch.ones_like(seen))
    return bool(torch.isfinite(seen).all() and torch.isfinite(back).all())


def _check_start(x0: Unknown, *, by: object) -> None:
    """Raise a `ValueError` where the start that a caller gives is not finite."""
    for name, part in parts(x0).items():
        if not bool(torch.isfinite(part).all()):
            raise ValueError(
                f"{type(by).__name__}: got x0{name and f'.{name}'} with values that are NaN or "
                "infinite, wanted a finite start"
            )


def fitting(x0: Unknown, like: Unknown, *, by: object) -> Unknown:
    """Return the start that a caller gives, after a check of its kind, shapes and dtypes.

    Args:
        x0: The start.
        like: What it has to be like: a tensor, or a `NamedTuple` of several.
        by: The method that asks, for the message.
    """
    name = type(by).__name__
    if not isinstance(x0, type(like)):
        raise ValueError(f"{name}: got x0 of {type(x0)}, wanted a {type(like).__name__}")
    for (part, got), wanted in zip(parts(x0).items(), parts(like).values(), strict=True):
        if got.shape != wanted.shape or got.dtype != wanted.dtype:
            raise ValueError(
                f"{name}: got x0{part and f'.{part}'} with shape {tuple(got.shape)} of "
                f"{got.dtype}, wanted {tuple(wanted.shape)} of {wanted.dtype}"
            )
    return x0


def given_or_zeros(x0: Tensor | None, measurement: Measurement, *, by: object) -> Tensor:
    """Return the image that a caller gives, if it fits; zeros where there is none.

    Args:
        x0: The image to start at, or None.
        measurement: What was seen.
        by: The method that asks, for the message.
    Returns:
        An image, with shape (B, *in_shape).
    """
    blank = torch.zeros_like(measurement.adjoint_y)
    return blank if x0 is None else fitting(x0, blank, by=by)


def parts(x: Unknown) -> dict[str, Tensor]:
    """Return the tensors of an unknown by their names; of a single one by none."""
    fields: Any = x
    return fields._asdict() if isinstance(x, tuple) else {"": x}
