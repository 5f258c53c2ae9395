r"""Linear operators: the physics of a measurement.

An operator is the linear map A of `y = A x + noise`, between batches of images of fixed shapes.
It owns its tensors (kernels, masks, coil maps), keeps physical units and is never changed by a
call. Three things make it useful to a method:

    A x            forward
    A^H y          adjoint, under the real inner product Re<., .>
    solve          (A^H A + gamma)^-1 b, the primitive from which the proximal map follows:

    prox(v, y, gamma) = argmin_x 1/2 ||A x - y||^2 + gamma/2 ||x - v||^2
                      = v + solve(A^H (y - A v), gamma),

and, with `n1, n2` white, `prox(v + sigma/sqrt(gamma) n2, y + sigma n1, gamma)` is an exact draw of
the Gaussian `N(prox(v, y, gamma), sigma^2 (A^H A + gamma)^-1)` (perturb and optimise). Operators
with a closed form override `solve`, `prox` or `sample`; the others inherit conjugate gradients.

Adding one: subclass, call `super().__init__` with the shapes, register tensors as buffers, name in
`items` those with one entry per item of the batch, write `forward`, `adjoint` and `example`. Where
an image has another shape than its data, `image_shape` says which. A closed form takes the options
of `solve` or `prox` that it has no use for as `**_`.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..linalg import cg, enough, hutchinson_trace, power_method
from ..tensors import Generators, items_at, norm, per_item, randn_like, weight_of
from .diagonal import Diagonal

__all__ = [
    "Adjoint",
    "Composed",
    "Identity",
    "LinearOperator",
    "Normal",
    "Scaled",
    "Stacked",
    "Sum",
]

Shape = tuple[int, ...]
_NARROW = (torch.float32, torch.complex64)
_WIDE = (torch.float64, torch.complex128)


class LinearOperator(nn.Module, ABC):
    """A linear map between batches of tensors.

    Args:
        in_shape: Shape of one input, without the batch axis.
        out_shape: Shape of one output, without the batch axis.
        in_dtype: `torch.float32` for real inputs, `torch.complex64` for complex ones. It says the
            kind; the precision follows the tensors (`operator.double()`).
        out_dtype: The same of the outputs.
    """

    command: ClassVar[str] = ""  # name on the command line, where it is not that of the class
    items: ClassVar[tuple[str, ...]] = ()
    estimated: ClassVar[tuple[str, ...]] = ()  # options that data can tell, see `jobs.kspace`
    pictures: bool = True  # whether real data are samples of the image's kind and range
    _precision: Tensor

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        in_dtype: torch.dtype = torch.float32,
        out_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)
        self.in_dtype, self.out_dtype = in_dtype, out_dtype
        # remembers precision and device, also where an operator has no tensors of its own
        self.register_buffer("_precision", torch.zeros(()), persistent=False)
        if not all(n > 0 for n in self.in_shape + self.out_shape):
            raise ValueError(f"{self}: got an empty axis, wanted shapes of positive sizes")

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """The measurement `A x`, with shape (B, *out_shape)."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """The adjoint `A^H y`, with shape (B, *in_shape)."""

    @classmethod
    @abstractmethod
    def example(cls) -> Self:
        """A tiny instance, on which the laws of `measurand.checks` are tested."""

    @classmethod
    def counted(cls, y_shape: Shape) -> dict[str, int]:
        """Return the options of the constructor that are counted in data; none by default.

        Args:
            y_shape: Shape of one measurement.
        """
        return {}

    @classmethod
    def image_shape(cls, y_shape: Shape) -> Shape:
        """Return the shape of the images whose measurements have a given shape.

        That of the data by default. An operator with another one names, like its constructor, the
        options that the shape depends on.

        Args:
            y_shape: Shape of one measurement, without the batch axis.
        Returns:
            The shape of one image, which the constructor takes.
        Raises:
            ValueError: The shape does not follow from the data.
        """
        return tuple(y_shape)

    def __call__(self, x: Tensor) -> Tensor:
        """The measurement of a batch, after a check of its shape and kind."""
        self.check_input(x)
        return super().__call__(x)

    def check_input(self, x: Tensor) -> None:
        """Raise a `ValueError` unless `x` is a batch of inputs of this operator."""
        if not isinstance(x, Tensor):
            raise TypeError(f"{self}: got a {type(x).__name__}, wanted a torch.Tensor")
        if x.shape[1:] != self.in_shape:
            raise ValueError(
                f"{self}: got an input with shape {tuple(x.shape)}, wanted (B, "
                f"{', '.join(map(str, self.in_shape))})"
            )
        wanted = [kinds[self.in_dtype.is_complex] for kinds in (_NARROW, _WIDE)]
        if x.dtype not in wanted:
            names = " or ".join(map(str, wanted))
            raise ValueError(f"{self}: got an input of {x.dtype}, wanted {names}")
        if not len(x) or self.batch not in (1, len(x)):
            size = "at least 1" if self.batch == 1 else f"{self.batch} (one per item)"
            raise ValueError(f"{self}: got a batch of {len(x)}, wanted {size}")

    # -- what a method asks for ----------------------------------------------------------------

    def gram(self, x: Tensor) -> Tensor:
        """The normal operator `A^H A x`, with the shape of `x`."""
        return self.adjoint(self.forward(x))

    def observed(self, y: Tensor) -> Tensor:
        """Return the data with zeros where nothing was measured; whatever stood there is dropped.

        Weights of data are not applied: they belong to A and are in the data already.

        Args:
            y: Measurement, with shape (B, *out_shape).
        Returns:
            The data, with the shape of `y`; `y` itself where everything is measured.
        """
        return y

    def air(self) -> Tensor | None:
        """Return where the image is known to be empty because nothing could be seen there.

        Such pixels are zero in every result; other unseen ones are holes, for a prior to fill.

        Returns:
            True where it is, a boolean tensor with shape (1 or B, 1 or C, H, W); None where
            nothing is known to be empty.
        """
        return None

    def framed(self, x: Tensor) -> Tensor:
        """Return the part of images that lies inside the frame of the measurement.

        Args:
            x: Images, with shape (B, *in_shape).
        Returns:
            Their part inside the frame; `x` itself where nothing beyond it is seen.
        """
        return x

    def prepare(self, y: Tensor) -> Tensor:
        """What a closed form of `prox` and `sample` needs of a measurement, computed once.

        Args:
            y: Measurement, with shape (B, *out_shape).
        Returns:
            A tensor for their argument `prepared`, linear in `y`; its meaning is the operator's.
            Without a use for it, `y` itself.
        """
        return y

    def solve(
        self,
        b: Tensor,
        gamma: float | Tensor,
        *,
        x0: Tensor | None = None,
        tol: float | None = None,
        residual: float | Tensor | None = None,
        max_iter: int = 1000,
    ) -> Tensor:
        """The solution of `(A^H A + gamma) x = b`.

        An iterative solver takes some `||A|| / sqrt(gamma)` iterations, and stops where the error
        is certain to be below `tol ||x||`: at a residual of `tol gamma ||x||`.

        Args:
            b: Right-hand side, with shape (B, *in_shape).
            gamma: Positive weight, a scalar or one per item.
            x0: Where an iterative solver starts; closed forms ignore it, and the next three.
            tol: Largest relative error of an iterative solver; 1e-4 in single precision and 1e-6
                in double where None.
            residual: Positive relative residual `||(A^H A + gamma) x - b|| / ||b||` at which an
                iterative solver stops instead, if given (a number or one per item): in a fraction
                of the iterations where gamma is small, with no bound of the error of what A hardly
                sees.
            max_iter: Largest number of its iterations; to end there with
                more than ten times `tol` gives a warning.
        Returns:
            The solution, with the shape of `b`; differentiable in `b` and `gamma`.
        """
        weight = weight_of(gamma, b)
        return cg(
            lambda x: self.gram(x) + weight * x,
            b,
            x0=x0,
            tol=next(t for t in (residual, tol, enough(b)) if t is not None),
            max_iter=max_iter,
            least=gamma if residual is None else None,
            precondition=self.preconditioner(gamma),
        )

    def preconditioner(self, gamma: float | Tensor) -> Callable[[Tensor], Tensor] | None:
        """Return an approximation of `(A^H A + gamma)^-1`, with which `solve` takes fewer steps.

        Args:
            gamma: Positive weight, a scalar or one per item.
        Returns:
            A map of batches with shape (B, *in_shape), linear, self-adjoint and positive, which
            acts on each item by itself; None, the default, where none is known.
        """
        return None

    def prox(
        self,
        v: Tensor,
        y: Tensor,
        gamma: float | Tensor,
        *,
        prepared: Tensor | None = None,
        x0: Tensor | None = None,
        residual: float | None = None,
        error: float | Tensor | None = None,
    ) -> Tensor:
        """The proximal map of the squared misfit, `argmin 1/2||Ax-y||^2 + gamma/2||x-v||^2`.

        Solved for the correction x - x0, so that its accuracy is relative to that: without a
        closed form 1e-4 in single precision and 1e-6 in double (see `solve`). Rounding adds what
        no iteration takes away, in single precision at most about `5e-8 ||A||^2 / gamma` (measured
        from v = 0; ten times less and better where A v is near y).

        The gradient g of the objective bounds the error, `||x - prox|| <= ||g|| / gamma`, which is
        what `error` goes by. Closed forms have no use for the last three arguments.

        Args:
            v: Point to stay near, with shape (B, *in_shape).
            y: Measurement, with shape (B, *out_shape).
            gamma: Positive weight, a scalar or one per item.
            prepared: `prepare(y)`, where the caller already has it; for closed forms.
            x0: Where an iterative solver starts; at v where None.
            residual: Where given, an iterative solver stops as soon as the gradient has fallen to
                this share of its norm at the start (see `solve`).
            error: Where given, it stops where the error is certain to be below this root mean
                square (per real component, in image units; a number or one per item): the gradient
                may then stay above `residual`, up to five times.
        Returns:
            The minimiser, with the shape of `v`.
        """
        start = v if x0 is None else x0
        # not A^H y - A^H A v: the rounding errors of that difference would be divided by gamma
        b = self.adjoint(y - self.forward(start))
        if x0 is not None:
            b = b + per_item(gamma, v) * (v - x0)
        goal: float | Tensor | None = residual
        if error is not None:
            least = per_item(error, b) * per_item(gamma, b) * _root_size(b) / per_item(norm(b), b)
            low, high = (0.0, 1.0) if residual is None else (residual, 5 * residual)
            goal = least.detach().flatten().clamp(low, high).nan_to_num(high)  # 0/0: v is it
        return start + self.solve(b, gamma, **_given(residual=goal))

    def sample(
        self,
        v: Tensor,
        y: Tensor,
        gamma: float | Tensor,
        sigma: float | Tensor,
        generator: Generators,
        *,
        prepared: Tensor | None = None,
    ) -> Tensor:
        """A draw of `N(prox(v, y, gamma), sigma^2 (A^H A + gamma)^-1)`, by perturb and optimise.

        Args:
            v: Point to stay near, with shape (B, *in_shape).
            y: Measurement, with shape (B, *out_shape).
            gamma: Positive weight, a scalar or one per item.
            sigma: Noise standard deviation of `y`, per real component.
            generator: One generator, one per item, or None for seed 0.
            prepared: `prepare(y)`, where the caller already has it.
        Returns:
            The draw, with the shape of `v`.
        """
        sd, root = per_item(sigma, v), weight_of(gamma, v).sqrt()
        noisy = y + per_item(sigma, y) * randn_like(y, generator)
        return self.prox(v + sd / root * randn_like(v, generator), noisy, gamma)

    @cached_property
    def norm(self) -> float:
        """The largest singular value over the whole batch of operators."""
        if self.batch > 1:
            return max(self.norms)
        with torch.no_grad():
            found = power_method(self.gram, self.blank_input())
        if not math.isfinite(found):
            raise FloatingPointError(
                f"{self}: its norm is not finite: forward or adjoint returns values that are NaN "
                "or infinite, or too large for its precision"
            )
        return found

    @cached_property
    def norms(self) -> list[float]:
        """The largest singular value of each operator of the batch."""
        if self.batch == 1:
            return [self.norm]
        return [self[i].norm for i in range(self.batch)]

    def trace_gram(self) -> float:
        """An estimate of `tr(A^H A) / n`: the mean energy that a unit pixel leaves in `A x`."""
        with torch.no_grad():
            one = self[0]
            return hutchinson_trace(one.gram, one.blank_input())

    @cached_property
    def traces(self) -> list[float]:
        """`tr(A^H A) / n` of each operator of the batch."""
        return [self[i].trace_gram() for i in range(self.batch)]

    def diagonal(self) -> Diagonal:
        """Return the singular values and vectors, where they are known in closed form.

        Returns:
            `A^H A = V Sigma^2 V^H`: analysis `V^H x`, synthesis `V c`, and the values of Sigma.
        Raises:
            TypeError: They are not known.
        """
        raise TypeError(
            f"{self}: its singular vectors are not known in closed form; those of Identity, Mask, "
            "FourierMask, CartesianMRI, SENSE with one coil of constant magnitude, Blur, "
            "GaussianBlur, MotionBlur, and of multiples of these are"
        )

    @property
    def spaces(self) -> tuple[Shape, Shape, torch.dtype, torch.dtype]:
        """Shapes and kinds of input and output: what the constructor of this class takes."""
        return self.in_shape, self.out_shape, self.in_dtype, self.out_dtype

    # -- tensors and batches -------------------------------------------------------------------

    @property
    def batch(self) -> int:
        """Number of different operators held: 1, or one per item of the batch."""
        return max((len(getattr(self, name)) for name in self.items), default=1)

    def blank_input(self, n: int = 1) -> Tensor:
        """A zero input on the operator's device, in its precision, with shape (n, *in_shape)."""
        double = any(t.dtype in (torch.float64, torch.complex128) for t in self.buffers())
        real, complex_ = _WIDE if double else _NARROW
        dtype = complex_ if self.in_dtype.is_complex else real
        return torch.zeros(n, *self.in_shape, dtype=dtype, device=self._precision.device)

    def repeat(self, n: int) -> Self:
        """The operator for a batch in which every item stands `n` times in a row.

        One that all items share is returned as it is.
        """
        if self.batch == 1:
            return self
        return self._map_items(lambda t: t.repeat_interleave(n, 0) if len(t) > 1 else t)

    def __getitem__(self, i: int | slice) -> Self:
        """The operator of some items; the batch axis stays.

        Args:
            i: Number of an item (an `IndexError` where there is none), or a slice of items, which
                leaves an operator that all items share as it is.
        """
        at = items_at(i, self.batch, self)
        if self.batch == 1:
            return self  # with what it has found out, such as its norm
        return self._map_items(lambda t: t[at] if len(t) > 1 else t)

    def _map_items(self, change: Callable[[Tensor], Tensor]) -> Self:
        new = copy.copy(self)
        new._buffers = dict(self._buffers)
        new._forget()
        for name in self.items:
            new._buffers[name] = change(getattr(self, name))
        return new

    def _forget(self) -> None:
        """Drop what was computed for other items."""
        for name in ("norm", "norms", "traces"):
            self.__dict__.pop(name, None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        # nn.Module casts complex buffers to real ones; ours change precision and stay complex
        def both(t: Tensor) -> Tensor:
            if not t.is_complex():
                return fn(t)
            return torch.view_as_complex(fn(torch.view_as_real(t)).contiguous())

        return super()._apply(both, recurse)

    # -- algebra -------------------------------------------------------------------------------

    @property
    def H(self) -> "LinearOperator":  # noqa: N802 (the field's symbol)
        """The adjoint as an operator."""
        return Adjoint(self)

    @property
    def N(self) -> "LinearOperator":  # noqa: N802 (the field's symbol)
        """The normal operator `A^H A`."""
        return Normal(self)

    def __matmul__(self, other: "LinearOperator") -> "LinearOperator":
        return Composed(self, other)

    def __rmul__(self, factor: float) -> "LinearOperator":
        return Scaled(self, factor)

    def __mul__(self, factor: float) -> "LinearOperator":
        return NotImplemented if isinstance(factor, LinearOperator) else Scaled(self, factor)

    def __add__(self, other: "LinearOperator") -> "LinearOperator":
        return Sum(self, other) if isinstance(other, LinearOperator) else NotImplemented

    def __sub__(self, other: "LinearOperator") -> "LinearOperator":
        return self + -other if isinstance(other, LinearOperator) else NotImplemented

    def __neg__(self) -> "LinearOperator":
        return Scaled(self, -1.0)

    def __repr__(self) -> str:
        def side(shape: Shape, dtype: torch.dtype) -> str:
            return "x".join(map(str, shape)) + (" complex" if dtype.is_complex else "")

        return (
            f"{type(self).__name__}({side(self.in_shape, self.in_dtype)} -> "
            f"{side(self.out_shape, self.out_dtype)})"
        )


def _given(**options: Any) -> dict[str, Any]:
    """The options for a `solve` or `prox` that may not know them, such as a user's closed form."""
    return {name: value for name, value in options.items() if value is not None}


def _root_size(x: Tensor) -> float:
    """The norm of an item of which every real component is one."""
    return math.sqrt(x[0].numel() * (2 if x.is_complex() else 1))


class Identity(LinearOperator):
    """The identity: denoising.

    Args:
        in_shape: Shape of one image.
        dtype: `torch.float32` or `torch.complex64`.
    """

    def __init__(self, in_shape: Shape, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(in_shape, in_shape, dtype, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        return y

    def solve(self, b: Tensor, gamma: float | Tensor, **_: Any) -> Tensor:
        return b / (1 + weight_of(gamma, b))

    def diagonal(self) -> Diagonal:
        blank = self.blank_input()
        return Diagonal(lambda x: x, lambda c: c, torch.ones_like(blank.real))

    def trace_gram(self) -> float:
        return 1.0

    @classmethod
    def example(cls) -> Self:
        return cls((2, 5, 4))


class _Wrapping(LinearOperator):
    """Operators made of operators: batches and shapes follow the parts."""

    def __init__(self, parts: Sequence[LinearOperator], *spaces: Any) -> None:
        super().__init__(*spaces)
        self._parts = nn.ModuleList(parts)

    @property
    def inner(self) -> list[LinearOperator]:
        """The operators this one is made of."""
        return list(self._parts)  # type: ignore[arg-type]

    @property
    def pictures(self) -> bool:  # type: ignore[override]
        return all(part.pictures for part in self.inner)

    def air(self) -> Tensor | None:
        each = [part.air() for part in self.inner]
        known = [air for air in each if air is not None]
        return (
            torch.stack(torch.broadcast_tensors(*known)).all(0)
            if len(known) == len(each)
            else None
        )

    @property
    def batch(self) -> int:
        return max(part.batch for part in self.inner)

    def _map_parts(self, change: Callable[[LinearOperator], LinearOperator]) -> Self:
        new = copy.copy(self)
        new._forget()
        new._modules = {"_parts": nn.ModuleList(change(part) for part in self.inner)}
        return new

    def repeat(self, n: int) -> Self:
        return self._map_parts(lambda part: part.repeat(n))

    def __getitem__(self, i: int | slice) -> Self:
        at = items_at(i, self.batch, self)
        return self if self.batch == 1 else self._map_parts(lambda part: part[at])


class Adjoint(_Wrapping):
    """The adjoint of an operator, itself an operator: `A.H`.

    Args:
        operator: The operator A.
    """

    def __init__(self, operator: LinearOperator) -> None:
        into, out, into_dtype, out_dtype = operator.spaces
        super().__init__([operator], out, into, out_dtype, into_dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner[0].adjoint(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner[0].forward(y)

    def air(self) -> Tensor | None:
        return None

    @property
    def H(self) -> LinearOperator:  # noqa: N802
        return self.inner[0]

    @classmethod
    def example(cls) -> Self:
        return cls(Composed.example())


class Composed(_Wrapping):
    """The product `P F S`: first S, then F, then P.

    Args:
        operators: The factors, from left to right as they are written.
    """

    def __init__(self, *operators: LinearOperator) -> None:
        if not operators:
            raise ValueError("Composed: got no operators, wanted at least one")
        for left, right in zip(operators, operators[1:], strict=False):
            if left.in_shape != right.out_shape or left.in_dtype != right.out_dtype:
                raise ValueError(f"Composed: {left} cannot follow {right}: their shapes differ")
        first, last = operators[-1], operators[0]
        spaces = (first.in_shape, last.out_shape, first.in_dtype, last.out_dtype)
        super().__init__(operators, *spaces)

    def forward(self, x: Tensor) -> Tensor:
        for part in reversed(self.inner):
            x = part.forward(x)
        return x

    def adjoint(self, y: Tensor) -> Tensor:
        for part in self.inner:
            y = part.adjoint(y)
        return y

    def observed(self, y: Tensor) -> Tensor:
        return self.inner[0].observed(y)

    def framed(self, x: Tensor) -> Tensor:
        *after, first = self.inner
        return x if any(p.in_shape != p.out_shape for p in after) else first.framed(x)

    def air(self) -> Tensor | None:
        return self.inner[-1].air()

    @classmethod
    def example(cls) -> Self:
        return cls(Scaled(Identity((1, 3, 4)), -0.5), Scaled(Identity((1, 3, 4)), 3.0))


class Stacked(_Wrapping):
    """Several measurements of one image, `x -> (A_1 x, A_2 x, ...)` joined along the channels.

    Args:
        operators: Operators with one input shape, whose outputs agree but for their first axis.
    """

    def __init__(self, *operators: LinearOperator) -> None:
        if not operators:
            raise ValueError("Stacked: got no operators, wanted at least one")
        first = operators[0]
        in_shape, out_shape, *kinds = first.spaces
        for other in operators[1:]:
            if other.spaces != (in_shape, (other.out_shape[0], *out_shape[1:]), *kinds):
                raise ValueError(f"Stacked: {first} and {other} do not fit on each other")
        rows = sum(part.out_shape[0] for part in operators)
        super().__init__(operators, in_shape, (rows, *out_shape[1:]), *kinds)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([part.forward(x) for part in self.inner], dim=1)

    def adjoint(self, y: Tensor) -> Tensor:
        pieces = y.split([part.out_shape[0] for part in self.inner], dim=1)
        backs = [part.adjoint(piece) for part, piece in zip(self.inner, pieces, strict=True)]
        return torch.stack(backs).sum(0)

    def observed(self, y: Tensor) -> Tensor:
        pieces = y.split([part.out_shape[0] for part in self.inner], dim=1)
        parts = zip(self.inner, pieces, strict=True)
        return torch.cat([part.observed(piece) for part, piece in parts], dim=1)

    @classmethod
    def example(cls) -> Self:
        return cls(Identity((2, 3, 4)), Scaled(Identity((2, 3, 4)), 2.0))


class Scaled(_Wrapping):
    """A multiple of an operator, `c A`; closed forms of A stay closed.

    Args:
        operator: The operator A.
        factor: The real number c, not zero.
    """

    def __init__(self, operator: LinearOperator, factor: float) -> None:
        if not (math.isfinite(factor) and factor != 0):
            raise ValueError(f"Scaled: got a factor {factor}, wanted a finite number, not zero")
        super().__init__([operator], *operator.spaces)
        self.factor = float(factor)

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * self.inner[0].forward(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.factor * self.inner[0].adjoint(y)

    def observed(self, y: Tensor) -> Tensor:
        return self.inner[0].observed(y)

    def framed(self, x: Tensor) -> Tensor:
        return self.inner[0].framed(x)

    def prepare(self, y: Tensor) -> Tensor:
        return self.inner[0].prepare(y / self.factor)

    def solve(self, b: Tensor, gamma: float | Tensor, **options: Any) -> Tensor:
        # (c^2 A^H A + gamma)^-1 = c^-2 (A^H A + gamma / c^2)^-1
        c2 = self.factor**2
        return self.inner[0].solve(b, gamma / c2, **options) / c2

    def prox(self, v: Tensor, y: Tensor, gamma: float | Tensor, **options: Any) -> Tensor:
        return self.inner[0].prox(v, y / self.factor, gamma / self.factor**2, **options)

    def sample(
        self,
        v: Tensor,
        y: Tensor,
        gamma: float | Tensor,
        sigma: float | Tensor,
        generator: Generators,
        *,
        prepared: Tensor | None = None,
    ) -> Tensor:
        c = self.factor
        return self.inner[0].sample(
            v, y / c, gamma / c**2, sigma / abs(c), generator, prepared=prepared
        )

    def diagonal(self) -> Diagonal:
        basis = self.inner[0].diagonal()
        return basis._replace(values=abs(self.factor) * basis.values)

    @cached_property
    def norm(self) -> float:
        return abs(self.factor) * self.inner[0].norm

    def trace_gram(self) -> float:
        return self.factor**2 * self.inner[0].trace_gram()

    @classmethod
    def example(cls) -> Self:
        return cls(Identity((1, 4, 3)), -2.0)


class Sum(_Wrapping):
    """The sum of operators between the same spaces.

    Args:
        operators: The terms; multiples and differences are terms with a factor (`A - 2 * B`).
    """

    def __init__(self, *operators: LinearOperator) -> None:
        if not operators:
            raise ValueError("Sum: got no operators, wanted at least one")
        first = operators[0]
        for other in operators[1:]:
            if other.spaces != first.spaces:
                raise ValueError(f"Sum: {first} and {other} are between different spaces")
        super().__init__(operators, *first.spaces)

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([part.forward(x) for part in self.inner]).sum(0)

    def adjoint(self, y: Tensor) -> Tensor:
        return torch.stack([part.adjoint(y) for part in self.inner]).sum(0)

    def observed(self, y: Tensor) -> Tensor:
        # measured is what any of the terms sees
        ones = torch.ones_like(y)
        seen = torch.stack([part.observed(ones) != 0 for part in self.inner]).any(0)
        return torch.where(seen, y, torch.zeros_like(y))

    @classmethod
    def example(cls) -> Self:
        return cls(Identity((2, 3, 4)), Scaled(Identity((2, 3, 4)), -3.0))


class Normal(_Wrapping):
    """The normal operator `A^H A`, computed as the operator computes it (`gram`).

    Args:
        operator: The operator A.
    """

    def __init__(self, operator: LinearOperator) -> None:
        shape, dtype = operator.in_shape, operator.in_dtype
        super().__init__([operator], shape, shape, dtype, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner[0].gram(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.inner[0].gram(y)

    @cached_property
    def norms(self) -> list[float]:
        return [norm**2 for norm in self.inner[0].norms]

    @cached_property
    def norm(self) -> float:
        return max(self.norms)

    @classmethod
    def example(cls) -> Self:
        return cls(Scaled(Identity((1, 3, 4)), -0.5))
