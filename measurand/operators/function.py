r"""Operators made from the user's own functions.

A linear map is known to a method by two actions, `x -> A x` and `y -> A^H y`. Here they are plain
functions: code in another library, a compiled projector, a few lines of torch.

Where only the forward action exists, automatic differentiation gives the adjoint exactly: for a
linear f the vector-Jacobian product at any point is

    d/dx Re<f(x), y> = A^H y,

in torch's convention of complex gradients also for complex tensors, and for a real x into a
complex y it is `Re(A^H y)`, the adjoint under the real inner product. The point is x = 0; at that
point `f(0) = 0` is checked too, since an affine f is a frequent mistake.

`linear_pair` makes such a pair differentiable, to any order: the derivative of one is the other,
whatever the functions do inside.
"""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from .base import LinearOperator, Shape

__all__ = ["AutogradOperator", "FunctionOperator", "linear_pair"]

Action = Callable[[Tensor], Tensor]


class _LinearPair(torch.autograd.Function):
    """Applies the first of two functions; its derivative applies the second."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, action: Action, transposed: Action) -> Tensor:
        ctx.pair = transposed, action
        return action(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return _LinearPair.apply(grads[0], *ctx.pair), None, None


def linear_pair(x: Tensor, action: Action, transposed: Action) -> Tensor:
    """The value `action(x)` of a linear map, differentiated by means of its adjoint.

    Args:
        x: Where to apply the map.
        action: The map A; autograd does not look inside.
        transposed: Its adjoint `A^H` under `Re<., .>`.
    Returns:
        `A x`, differentiable in `x` to any order.
    """
    return _LinearPair.apply(x, action, transposed)


class FunctionOperator(LinearOperator):
    """An operator made from two functions, its forward map and its adjoint.

    The functions may call any library: the derivative of one is taken to be the other. Check a
    new pair with `measurand.checks.adjoint_error`.

    Args:
        in_shape: Shape of one input, without the batch axis.
        out_shape: Shape of one output, without the batch axis.
        forward: The map `x -> A x` on a batch, with shape (B, *in_shape).
        adjoint: The map `y -> A^H y` on a batch, with shape (B, *out_shape).
        in_dtype: `torch.float32` or `torch.complex64`: real or complex inputs.
        out_dtype: The same of the outputs.
    """

    def __init__(
        self,
        in_shape: Shape,
        out_shape: Shape,
        forward: Action,
        adjoint: Action,
        *,
        in_dtype: torch.dtype = torch.float32,
        out_dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(in_shape, out_shape, in_dtype, out_dtype)
        self._actions = forward, adjoint
        with torch.no_grad():
            x = self.blank_input()
            y = torch.zeros(1, *self.out_shape, dtype=self.out_dtype)
            _expect(f"{self}: forward", forward(x), y)
            _expect(f"{self}: adjoint", adjoint(y), x)

    def forward(self, x: Tensor) -> Tensor:
        action, transposed = self._actions
        return linear_pair(x, action, transposed)

    def adjoint(self, y: Tensor) -> Tensor:
        action, transposed = self._actions
        return linear_pair(y, transposed, action)

    @classmethod
    def example(cls) -> Self:
        return cls((1, 5, 3), (1, 4, 3), _steps, _steps_back)


class AutogradOperator(LinearOperator):
    """An operator made from one linear torch function; autograd gives the adjoint.

    What the function closes over (a kernel, a weight) may require gradients: they flow through
    the forward map and through the adjoint.

    Args:
        in_shape: Shape of one input, without the batch axis.
        function: The linear map `x -> A x` on a batch, differentiable by torch, following the
            precision and device of `x`.
        in_dtype: `torch.float32` or `torch.complex64`: real or complex inputs. The output's
            shape and kind are found by one call.
    """

    def __init__(
        self, in_shape: Shape, function: Action, *, in_dtype: torch.dtype = torch.float32
    ) -> None:
        with torch.no_grad():
            x = torch.zeros(1, *in_shape, dtype=in_dtype)
            y = function(x)
        if not isinstance(y, Tensor):
            raise TypeError(
                f"AutogradOperator: the function returned a {type(y).__name__}, "
                "wanted a torch.Tensor"
            )
        kind = torch.complex64 if y.is_complex() else torch.float32
        super().__init__(in_shape, tuple(y.shape[1:]), in_dtype, kind)
        self._function = function
        _expect(f"{self}: function", y, torch.zeros(1, *self.out_shape, dtype=kind))

    def forward(self, x: Tensor) -> Tensor:
        return self._function(x)

    def adjoint(self, y: Tensor) -> Tensor:
        differentiable = torch.is_grad_enabled()
        # inference mode would forbid the gradient that this is
        with torch.inference_mode(False), torch.enable_grad():
            y = y.clone() if y.is_inference() else y
            x = self.blank_input(len(y)).to(y.device)
            if y.dtype in (torch.float64, torch.complex128):
                x = x.to(torch.complex128 if x.is_complex() else torch.float64)
            value = self._function(x.requires_grad_())
            if not value.requires_grad:
                raise ValueError(f"{self}: the function cut the graph, wanted one of torch alone")
            (back,) = torch.autograd.grad(value, x, y, create_graph=differentiable)
        return back

    @classmethod
    def example(cls) -> Self:
        return cls((2, 5, 4), _spectrum)


# of the examples, by name: a lambda cannot be pickled


def _steps(x: Tensor) -> Tensor:
    return x[..., 1:, :] - x[..., :-1, :]


def _steps_back(y: Tensor) -> Tensor:
    return functional.pad(y, (0, 0, 1, 0)) - functional.pad(y, (0, 0, 0, 1))


def _spectrum(x: Tensor) -> Tensor:
    return torch.fft.rfft(x, norm="ortho")[:, :, 1:] * (2 - 1j)


def _expect(name: str, value: Tensor, wanted: Tensor) -> None:
    """Raise a `ValueError` unless the image of zero is zero, in the shape and kind wanted."""
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} returned a {type(value).__name__}, wanted a torch.Tensor")
    if value.shape != wanted.shape or value.is_complex() != wanted.is_complex():
        raise ValueError(
            f"{name} returned shape {tuple(value.shape)} and {value.dtype}, wanted shape "
            f"{tuple(wanted.shape)} and {wanted.dtype}"
        )
    if not bool((value == 0).all()):
        raise ValueError(f"{name} does not map zero to zero, wanted a linear function")
