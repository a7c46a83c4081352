"""Where a change of a matrix lies: in what the matrix does already, or beside it.

The subspace of a matrix is that of its largest singular values, which have all of its squares but a
share of `tolerance` squared (Tanwar et al. 2025, appendix A.7). How much of a change lies inside is
published as SSA. A change at random has the share k/m of its squares inside, whatever it is: k
dimensions of m. Where we differ: the published tables are shares of squares, and are called so;
beside each share stands what chance gives, and how far it is beyond that, on both sides of the
matrix. Chance and its spread over all rotations of the change are known without drawing one.

Everything follows from three products of the smaller side of the matrices, in float64: the singular
vectors of the larger side are never made.
"""

from typing import Literal, NamedTuple

import numpy as np
from scipy.sparse.linalg import eigsh

Norm = Literal["fro2", "fro", "spectral"]
TOLERANCE = 0.05
# Rows that are in float64 at once.
ROWS = 1024
# Explicit bits of the fraction.
BFLOAT16_BITS = 7
# Below, all eigenvalues are had at once.
_FEW = 128


class Inside(NamedTuple):
    """How much of a change lies in the subspace of a matrix, on one side of it.

    Attributes
    ----------
    share : float
        Of the squares of the change (SSA, ``fro2``); NaN if there is no change.
    inside, outside : float
        These squares, and the rest (E-parallel and E-perpendicular, squared).
    spectral, spectral_inside, spectral_outside : float
        The largest singular values of the change and of the two parts.
    chance : float
        The share of a change at random: dimensions of the subspace over all.
    spread : float
        Standard deviation of the share when the change is turned at random, its singular values
        kept.
    noise : float
        The share of rounding the matrix to bfloat16, on average.
    """

    share: float
    inside: float
    outside: float
    spectral: float
    spectral_inside: float
    spectral_outside: float
    chance: float
    spread: float
    noise: float

    @property
    def excess(self) -> float:
        """How far the share is beyond chance: 1 if all is inside, 0 at chance, below 0 if less."""
        return float(_over(self.share - self.chance, 1 - self.chance))

    @property
    def z(self) -> float:
        """How far the share is from chance, in spreads of a change that is turned at random."""
        return float(_over(self.share - self.chance, self.spread))

    def aligned(self, norm: Norm) -> float:
        """SSA by a norm: the share of squares, its root, or of the largest singular value."""
        if norm == "spectral":
            return float(_over(self.spectral_inside, self.spectral))
        return self.share if norm == "fro2" else float(np.sqrt(self.share))


class Moved(NamedTuple):
    """A change of a matrix, told beside the matrix.

    Attributes
    ----------
    shape : tuple of int
        Output, input.
    kept : int
        Dimensions of the subspace, k.
    squares, changed : float
        Sums of the squares of the matrix and of the change.
    along : float
        The sum of their products.
    floor : float
        Relative size of rounding the matrix to bfloat16: a change as small is mostly rounding.
    zeros : float
        Share of numbers that did not change at all.
    directions : float
        Of the change, the square of the sum over the sum of squares of its squared singular values:
        in how many directions it lies.
    effective_rank : float
        The exponential of their entropy (Roy & Vetterli 2007).
    left, right : Inside
        By what the matrix gives, and by what it takes.
    """

    shape: tuple[int, int]
    kept: int
    squares: float
    changed: float
    along: float
    floor: float
    zeros: float
    directions: float
    effective_rank: float
    left: Inside
    right: Inside

    @property
    def size(self) -> float:
        """Relative size of the change."""
        return float(np.sqrt(_over(self.changed, self.squares)))

    @property
    def cosine(self) -> float:
        """Between the matrix before and after."""
        return cosine_after(self.squares, self.changed, self.along)


def cosine_after(squares: float, changed: float, along: float) -> float:
    """Cosine of what was with what is, from the squares of what was and of the change."""
    after = squares + 2 * along + changed
    return float(_over(squares + along, np.sqrt(squares * after)))


class Subspace:
    """That of the largest singular values of a matrix, on both of its sides.

    Parameters
    ----------
    matrix : numpy.ndarray
        output x input.
    tolerance : float
        What the subspace leaves has at most this share, squared, of the squares.

    Attributes
    ----------
    kept : int
        Its dimensions, k.
    squares : float
        Sum of the squares of the matrix.
    """

    def __init__(self, matrix: np.ndarray, *, tolerance: float = TOLERANCE) -> None:
        self.tall = matrix.shape[0] >= matrix.shape[1]
        self._long = matrix if self.tall else matrix.T
        values, vectors = np.linalg.eigh(_product(self._long, self._long))
        values, self._vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
        self.kept, self.squares = dimensions(values, tolerance), float(values.sum())
        # Singular vectors of the larger side are matrix @ basis / sizes, and are never kept.
        self._basis, self._sizes = self._vectors[:, : self.kept], np.sqrt(values[: self.kept])

    def moved(self, change: np.ndarray) -> Moved:
        """Tell how the matrix was changed: `change` is output x input."""
        b = change if self.tall else change.T
        across, own = _product(self._long, b), _product(b, b)
        along = self._basis.T @ across / self._sizes[:, None]
        inside, rest = self._basis.T @ own @ self._basis, self._vectors[:, self.kept :]
        of_long = along.T @ along
        parts = (of_long, own - of_long), (inside, rest.T @ own @ rest)
        spectrum = np.maximum(np.linalg.eigvalsh(own), 0)
        *noises, rounding = self._rounding()
        sides = [
            _inside(both, self.kept, side, spectrum, noise)
            for both, side, noise in zip(parts, self._long.shape, noises, strict=True)
        ]
        changed = float(spectrum.sum())
        share = spectrum[spectrum > 0] / changed if changed > 0 else np.empty(0)
        left, right = sides if self.tall else reversed(sides)
        return Moved(
            (change.shape[0], change.shape[1]),
            self.kept,
            self.squares,
            changed,
            float(np.trace(across)),
            float(np.sqrt(_over(rounding, self.squares))),
            float(np.mean(change == 0)),
            float(_over(1, np.square(share).sum())),
            float(np.exp(-(share * np.log(share)).sum())) if len(share) else np.nan,
            left,
            right,
        )

    def shares(self, change: np.ndarray) -> tuple[float, float]:
        """How much of the squares of a change lies inside, on the left and on the right."""
        b = change if self.tall else change.T
        across, own = _product(self._long, b), _product(b, b)
        long = np.square(self._basis.T @ across / self._sizes[:, None]).sum()
        short = np.sum(self._basis * (own @ self._basis))
        found = (float(_over(one, np.trace(own))) for one in (long, short))
        left, right = found if self.tall else reversed(list(found))
        return left, right

    def _rounding(self) -> tuple[float, float, float]:
        """Of rounding to bfloat16: shares inside, of the larger and smaller side, and its squares.

        Rounding is as good as independent from number to number, and even over a step.
        """
        a, columns, large = self._long, np.zeros(self._long.shape[1]), 0.0
        turned = (self._basis / self._sizes).astype(np.float32)
        for first in range(0, len(a), ROWS):
            some = a[first : first + ROWS].astype(np.float32)
            variance = step_of(some, BFLOAT16_BITS).astype(np.float64) ** 2 / 12
            columns += variance.sum(0)
            lever = np.square(some @ turned).sum(1, dtype=np.float64)
            large += float(variance.sum(1) @ lever)
        whole = float(columns.sum())
        small = float(columns @ np.square(self._basis).sum(1))
        return float(_over(large, whole)), float(_over(small, whole)), whole


def moved(matrix: np.ndarray, change: np.ndarray, *, tolerance: float = TOLERANCE) -> Moved:
    """Tell how a matrix was changed; both are output x input."""
    return Subspace(matrix, tolerance=tolerance).moved(change)


def dealt_out(change: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A change with its rows and columns under each other's names, with signs at random.

    It keeps all of its singular values, and which numbers it has but for their signs.
    """
    rows, columns = (rng.permutation(side) for side in change.shape)
    signs = [rng.choice(np.array([-1, 1], dtype=np.float32), size=side) for side in change.shape]
    return change[rows][:, columns] * signs[0][:, None] * signs[1]


def dimensions(values: np.ndarray, tolerance: float) -> int:
    """How many of the largest leave at most the square of `tolerance` of the sum.

    Parameters
    ----------
    values : numpy.ndarray
        Squared singular values, descending.
    tolerance : float
    """
    left = values.sum() - np.cumsum(values)
    # What rounding leaves of a sum is not taken for one more dimension.
    return 1 + int(np.argmax(left <= tolerance**2 * values.sum() + 1e-12 * values.sum()))


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Over the rows of two tall matrices, in float64."""
    made = np.zeros((a.shape[1], b.shape[1]))
    for first in range(0, len(a), ROWS):
        some = a[first : first + ROWS].astype(np.float64)
        # Of one matrix with itself, half of the work is left out by numpy.
        other = some if b is a else b[first : first + ROWS].astype(np.float64)
        made += some.T @ other
    return made


def _inside(
    parts: tuple[np.ndarray, np.ndarray],
    kept: int,
    side: int,
    spectrum: np.ndarray,
    noise: float,
) -> Inside:
    """One side, from the products of the two parts of a change with themselves."""
    whole, inside = spectrum.sum(), float(np.trace(parts[0]))
    weight = spectrum / whole if whole > 0 else np.full(len(spectrum), np.nan)
    # The variance over all rotations of one of two symmetric matrices against the other: the
    # squares of what they have beside their traces, over the dimension of such matrices.
    around = kept * (1 - kept / side), np.square(weight).sum() - 1 / side
    variance = 2 * np.prod(around) / max((side - 1) * (side + 2), 1)
    return Inside(
        float(_over(inside, whole)),
        inside,
        max(float(whole) - inside, 0.0),
        float(np.sqrt(spectrum[-1])),
        _largest(parts[0]),
        _largest(parts[1]),
        kept / side,
        float(np.sqrt(max(variance, 0.0))),
        noise,
    )


def _largest(gram: np.ndarray) -> float:
    """The largest singular value of that of which this is the product with itself."""
    if len(gram) == 0 or not gram.any():
        return 0.0
    if len(gram) <= _FEW:
        return float(np.sqrt(max(np.linalg.eigvalsh(gram)[-1], 0.0)))
    start = gram @ np.ones(len(gram))
    found = eigsh(gram, k=1, v0=start, return_eigenvectors=False)
    return float(np.sqrt(max(found[0], 0.0)))


def step_of(values: np.ndarray, bits: int) -> np.ndarray:
    """The distance of neighbouring numbers of so many bits of fraction, where these lie."""
    _, exponent = np.frexp(values)
    return np.where(values == 0, 0, np.ldexp(np.float32(1), exponent - 1 - bits))


class Agreement(NamedTuple):
    """How far two changes of a matrix are alike.

    Attributes
    ----------
    product : float
        The sum of their products.
    squares : tuple of float
        Of each.
    dealt : float
        That sum on average when the rows of one are under each other's names.
    spread : float
        Its standard deviation then.
    flipped : float
        Its standard deviation when each row has a sign at random; the mean is 0.
    """

    product: float
    squares: tuple[float, float]
    dealt: float
    spread: float
    flipped: float

    @property
    def cosine(self) -> float:
        return float(_over(self.product, self._sizes))

    @property
    def chance(self) -> float:
        """The cosine on average when rows are dealt out."""
        return float(_over(self.dealt, self._sizes))

    @property
    def width(self) -> float:
        """Standard deviation of the cosine then."""
        return float(_over(self.spread, self._sizes))

    @property
    def z(self) -> float:
        return float(_over(self.product - self.dealt, self.spread))

    @property
    def _sizes(self) -> float:
        return float(np.sqrt(self.squares[0] * self.squares[1]))

    def __add__(self, other: object) -> "Agreement":
        """Of two matrices together, whose rows are dealt out each for itself."""
        if not isinstance(other, Agreement):
            return NotImplemented
        return Agreement(
            self.product + other.product,
            (self.squares[0] + other.squares[0], self.squares[1] + other.squares[1]),
            self.dealt + other.dealt,
            float(np.hypot(self.spread, other.spread)),
            float(np.hypot(self.flipped, other.flipped)),
        )


def agreement(one: np.ndarray, other: np.ndarray) -> Agreement:
    """Tell how far two changes of the same matrix are alike.

    Two directions at random in so many dimensions have a cosine of next to 0, but changes are not
    at random: a few rows and directions have most of them, and in these two may be alike by luck.
    Chance is therefore what is had when the rows of one are dealt out anew, which keeps its
    singular values; mean and spread over all such dealings are known without drawing one.

    Parameters
    ----------
    one, other : numpy.ndarray
        output x input.
    """
    a, b = (each.astype(np.float64) for each in (one, other))
    rows = np.einsum("ij,ij->i", a, b)
    mean_a, mean_b = a.mean(0), b.mean(0)
    squares = float(np.square(a).sum()), float(np.square(b).sum())
    dealt = len(a) * float(mean_a @ mean_b)
    a -= mean_a
    b -= mean_b
    # The sum of squares over all pairs of rows, by whichever product is smaller.
    pairs = np.vdot(a.T @ a, b.T @ b) if len(a) >= a.shape[1] else np.square(a @ b.T).sum()
    spread = np.sqrt(pairs / (len(a) - 1)) if len(a) > 1 else 0.0
    return Agreement(
        float(rows.sum()), squares, dealt, float(spread), float(np.sqrt(np.square(rows).sum()))
    )


def _over(above: float, below: float) -> float:
    """A ratio; NaN where there is nothing to divide by."""
    return above / below if below > 0 else np.nan
