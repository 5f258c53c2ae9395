r"""To and from `scipy.sparse.linalg.LinearOperator`.

scipy's operators act on vectors, ours on batches of images: the vector is the image, flattened.
An operator between a real and a complex space has no complex adjoint; there the complex side is
written as real pairs `(re, im)`, twice as long, and scipy sees an ordinary real operator, so that
`lsqr` and the other solvers of scipy are right.
"""

import math
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from .base import LinearOperator, Shape
from .function import linear_pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ScipyOperator", "to_scipy"]


def to_scipy(operator: LinearOperator) -> Any:
    """The operator as a `scipy.sparse.linalg.LinearOperator`.

    Args:
        operator: An operator with one entry (index one of a batch first, `operator[i]`).
    Returns:
        A scipy operator of shape (outputs, inputs) in the precision of ours, which applies
        several columns as one batch.
    """
    import numpy as np
    from scipy.sparse.linalg import LinearOperator as Scipy

    if operator.batch != 1:
        raise ValueError(
            f"to_scipy: got {operator} with {operator.batch} different items, wanted one: "
            "take operator[i]"
        )
    blank_in, blank_out = operator.blank_input(), operator.H.blank_input()
    mixed = blank_in.is_complex() != blank_out.is_complex()

    def columns_to_batch(columns: "NDArray[Any]", like: Tensor) -> Tensor:
        rows = np.ascontiguousarray(columns.T)
        if mixed and like.is_complex():
            rows = np.ascontiguousarray(rows.real).reshape(len(rows), -1, 2)
            batch = torch.view_as_complex(torch.from_numpy(rows).to(like.real.dtype))
        else:
            batch = torch.from_numpy(rows).to(like.dtype)
        return batch.to(like.device).reshape(-1, *like.shape[1:])

    def batch_to_columns(batch: Tensor) -> "NDArray[Any]":
        if mixed and batch.is_complex():
            batch = torch.view_as_real(batch)
        return batch.resolve_conj().flatten(1).cpu().numpy().T

    def side(blank: Tensor) -> int:
        return blank.numel() * (2 if mixed and blank.is_complex() else 1)

    class Ours(Scipy):
        def _matmat(self, columns: "NDArray[Any]") -> "NDArray[Any]":
            with torch.no_grad():
                return batch_to_columns(operator(columns_to_batch(columns, blank_in)))

        def _rmatmat(self, columns: "NDArray[Any]") -> "NDArray[Any]":
            with torch.no_grad():
                return batch_to_columns(operator.H(columns_to_batch(columns, blank_out)))

        def _matvec(self, vector: "NDArray[Any]") -> "NDArray[Any]":
            return self._matmat(vector.reshape(-1, 1))

        def _rmatvec(self, vector: "NDArray[Any]") -> "NDArray[Any]":
            return self._rmatmat(vector.reshape(-1, 1))

    kind = (blank_in.real if mixed else blank_in).cpu().numpy().dtype
    return Ours(dtype=kind, shape=(side(blank_out), side(blank_in)))


class ScipyOperator(LinearOperator):
    """A scipy operator, a sparse matrix or an array, acting on flattened images.

    Runs on the CPU in numpy; data on another device travel there and back. Differentiable: the
    derivative is the operator's own adjoint, which it must have (`rmatvec`).

    Args:
        in_shape: Shape of one input, without the batch axis.
        out_shape: Shape of one output, without the batch axis.
        matrix: What `scipy.sparse.linalg.aslinearoperator` takes, with shape (outputs, inputs).
            A complex dtype makes inputs and outputs complex.
    """

    def __init__(self, in_shape: Shape, out_shape: Shape, matrix: object) -> None:
        import numpy as np
        from scipy.sparse.linalg import aslinearoperator

        inner = aslinearoperator(matrix)
        is_complex = inner.dtype is not None and np.issubdtype(inner.dtype, np.complexfloating)
        dtype = torch.complex64 if is_complex else torch.float32
        super().__init__(in_shape, out_shape, dtype, dtype)
        wanted = (math.prod(self.out_shape), math.prod(self.in_shape))
        if tuple(inner.shape) != wanted:
            raise ValueError(f"{self}: got a matrix of {inner.shape}, wanted {wanted}")
        try:
            inner.rmatvec(np.zeros(wanted[0], dtype=inner.dtype))
        except (TypeError, NotImplementedError) as error:
            raise ValueError(f"{self}: got a matrix without adjoint, wanted rmatvec") from error
        self._inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return linear_pair(x, self._multiply, self._multiply_back)

    def adjoint(self, y: Tensor) -> Tensor:
        return linear_pair(y, self._multiply_back, self._multiply)

    def _multiply(self, x: Tensor) -> Tensor:
        return _through_numpy(self._inner.matmat, x, self.out_shape)

    def _multiply_back(self, y: Tensor) -> Tensor:
        return _through_numpy(self._inner.rmatmat, y, self.in_shape)

    @classmethod
    def example(cls) -> Self:
        import numpy as np
        from scipy.sparse import random_array

        return cls((1, 4, 3), (5, 2), random_array((10, 12), density=0.4, rng=0, dtype=np.float64))


def _through_numpy(action: Any, batch: Tensor, shape: Shape) -> Tensor:
    columns = batch.detach().flatten(1).cpu().resolve_conj().numpy().T
    rows = torch.from_numpy(action(columns).T.copy())
    return rows.to(batch.device, batch.dtype).reshape(len(batch), *shape)
