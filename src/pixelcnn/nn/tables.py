"""Functions over a grid, as tables of integers that are the same on every machine.

The `exp` of one library may differ from that of another in the last bits. Here, functions are only evaluated at numbers
on a grid, and rounded to another grid. No value lies within ten rounding errors of double precision of the middle
between two numbers of that grid, so all sound libraries make the same tables. `TABLES_HASH` checks it.

Reference: Balle, Johnston & Minnen, Integer networks for data compression with latent-variable models (ICLR 2019), on
why decoders need this.
"""

__all__ = ["TABLES_HASH", "Tables", "tables"]

import hashlib
from functools import cache
from typing import NamedTuple

import numpy as np

STEPS = 2**10  # of the grid of activations and parameters, in one unit
GATE = 2**14  # steps of `sigmoid` and `tanh`
ELU_REACH, GATE_REACH = 8, 16  # units from zero beyond which these functions are constant, to a step
WEIGHT = 2**20  # steps of the weight of a component
EXP_REACH = 16
MASS, LOGISTIC_STEPS, LOGISTIC_REACH = 2**32, 2**6, 24  # of the distribution function of a logistic
TABLES_HASH = "8eba1bf4f7a43f8ad761ae404d738618783e50ff6fe00f65d071b94eacb91b84"


class Tables(NamedTuple):
    """The tables, float64 with whole numbers except for `precision`."""

    elu: np.ndarray
    """`elu` of -8 to 0 in steps of 2^-10, in units of 2^-10."""
    sigmoid: np.ndarray
    """`sigmoid` of -16 to 16 in steps of 2^-10, in units of 2^-14."""
    tanh: np.ndarray
    """`tanh` of -16 to 16 in steps of 2^-10, in units of 2^-14."""
    weight: np.ndarray
    """`exp` of -16 to 0 in steps of 2^-10, in units of 2^-20."""
    precision: np.ndarray
    """`exp` of -16 to 16 in steps of 2^-10, rounded to 24 significant bits."""
    logistic: np.ndarray
    """`sigmoid` of -24 to 24 in steps of 2^-6, in units of 2^-32, to be interpolated. The last entry is there twice."""


@cache
def tables() -> Tables:
    """Make the tables.

    Raises:
        ValueError: if this machine makes others, because its `exp` or `tanh` is wrong by far more than rounding.
    """
    elu, gate, weight = (_grid(*ends, STEPS) for ends in ((-ELU_REACH, 0), (-GATE_REACH, GATE_REACH), (-EXP_REACH, 0)))
    precisions = np.exp(_grid(-EXP_REACH, EXP_REACH, STEPS))
    logistic = np.rint(MASS / (1 + np.exp(-_grid(-LOGISTIC_REACH, LOGISTIC_REACH, LOGISTIC_STEPS))))
    made = Tables(
        np.rint(STEPS * np.expm1(elu)),
        np.rint(GATE / (1 + np.exp(-gate))),
        np.rint(GATE * np.tanh(gate)),
        np.rint(WEIGHT * np.exp(weight)),
        precisions.astype(np.float32).astype(np.float64),
        np.append(logistic, logistic[-1]),
    )
    digest = hashlib.sha256(b"".join(table.astype("<f8").tobytes() for table in made)).hexdigest()
    if digest != TABLES_HASH:
        raise ValueError(
            f"NumPy {np.__version__} makes other tables (SHA-256 {digest[:12]}) than those of the format "
            f"({TABLES_HASH[:12]}): use another NumPy, or another machine"
        )
    return made


def _grid(first: int, last: int, steps: int) -> np.ndarray:
    """List the numbers from `first` to `last`, both included, `steps` in one unit."""
    return np.arange(first * steps, last * steps + 1) / steps
