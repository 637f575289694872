r"""Square matrices known by their products: see :mod:`~geomem.operators.jacobian`."""

from __future__ import annotations

from geomem.operators.jacobian import DenoiserJacobian, Strategy, jacobian_diagonal, one_point
from geomem.operators.linear import Cost, Costed, Factored, LinearOperator, Matrix, Need, Symmetric

__all__ = [
    "Cost",
    "Costed",
    "DenoiserJacobian",
    "Factored",
    "LinearOperator",
    "Matrix",
    "Need",
    "Strategy",
    "Symmetric",
    "jacobian_diagonal",
    "one_point",
]
