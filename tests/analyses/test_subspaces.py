"""Where changes of matrices lie: closed forms, a full decomposition, and what noise gives."""

import numpy as np
import pytest

from analyses.subspaces import (
    Moved,
    agreement,
    cosine_after,
    dimensions,
    moved,
    step_of,
)

WIDTH = 96


def matrix(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    """At random, with singular values that fall."""
    fall = [np.exp(-4 * np.arange(side) / side) for side in (rows, columns)]
    return (rng.normal(size=(rows, columns)) * fall[0][:, None] * fall[1]).astype(np.float32)


def turn(rng: np.random.Generator, side: int) -> np.ndarray:
    """A rotation or reflection, all alike likely."""
    q, r = np.linalg.qr(rng.normal(size=(side, side)))
    return q * np.sign(np.diag(r))


def by_full_decomposition(w: np.ndarray, t: np.ndarray, side: str) -> dict[str, float]:
    """The definition word by word, by numpy's full SVD."""
    u, s, vt = np.linalg.svd(w.astype(np.float64))
    left = np.cumsum((s**2)[::-1])[::-1]
    rest = np.append(left[1:], 0)
    k = 1 + int(np.argmax(rest <= 0.05**2 * left[0]))
    t = t.astype(np.float64)
    inside = u[:, :k] @ u[:, :k].T @ t if side == "left" else t @ vt[:k].T @ vt[:k]
    return {
        "kept": k,
        "share": np.square(inside).sum() / np.square(t).sum(),
        "inside": np.square(inside).sum(),
        "outside": np.square(t - inside).sum(),
        "spectral": np.linalg.norm(t, 2),
        "spectral_inside": np.linalg.norm(inside, 2),
        "spectral_outside": np.linalg.norm(t - inside, 2),
    }


@pytest.mark.parametrize("shape", [(160, 48), (48, 160), (64, 64), (8, 40)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_small_products_give_what_a_full_decomposition_gives(shape, side) -> None:
    rng = np.random.default_rng(0)
    w, t = matrix(rng, *shape), matrix(rng, *shape)
    found, wanted = moved(w, t), by_full_decomposition(w, t, side)
    assert found.kept == wanted.pop("kept") < min(shape)
    told = getattr(found, side)
    for name, value in wanted.items():
        assert getattr(told, name) == pytest.approx(value, rel=1e-8), name
    assert told.aligned("fro") == pytest.approx(np.sqrt(told.share))
    assert told.aligned("spectral") == pytest.approx(
        wanted["spectral_inside"] / wanted["spectral"], rel=1e-8
    )


def test_what_is_inside_is_inside_and_what_is_orthogonal_is_not() -> None:
    rng = np.random.default_rng(1)
    w = matrix(rng, 120, 40)
    u, s, vt = np.linalg.svd(w.astype(np.float64), full_matrices=True)
    k = dimensions(s**2, 0.05)
    inside = (u[:, :k] @ rng.normal(size=(k, k)) @ vt[:k]).astype(np.float32)
    beside = (u[:, k:] @ rng.normal(size=(120 - k, 40 - k)) @ vt[k:]).astype(np.float32)
    there, not_there = moved(w, inside), moved(w, beside)
    for side in ("left", "right"):
        assert getattr(there, side).share == pytest.approx(1, abs=1e-6)
        assert getattr(there, side).excess == pytest.approx(1, abs=1e-6)
        assert getattr(not_there, side).share == pytest.approx(0, abs=1e-6)
        assert getattr(not_there, side).excess < -0.1


# Recipe of METHODS C7: width 256, 1353 neurons, 36 rows of keys; the published order is q, k, v, o
# about .8 to 1, gate and up about .2 to .3, down about 1 (Tanwar et al. 2025, table 4).
def test_noise_reproduces_the_order_of_the_published_table() -> None:
    rng = np.random.default_rng(0)
    shapes = {"gate": (1353, 256), "down": (256, 1353), "q": (256, 256), "k": (36, 256)}
    wanted = {"gate": 0.186, "down": 0.992, "q": 0.839, "k": 1.0}
    found: dict[str, Moved] = {}
    for name, shape in shapes.items():
        w = rng.normal(size=shape) * np.exp(-np.arange(shape[1]) / shape[1])
        found[name] = moved(w, rng.normal(size=shape))
        assert found[name].left.share == pytest.approx(wanted[name], abs=0.01)
        assert found[name].left.share == pytest.approx(found[name].left.chance, abs=0.01)
    order = sorted(found, key=lambda name: found[name].left.share)
    assert order == ["gate", "q", "down", "k"]
    # By excess, which is what components may be compared by, they are all alike.
    assert all(abs(found[name].left.excess) < 0.05 for name in ("gate", "down", "q"))
    # A gate can be inside on the right alone.
    assert found["gate"].right.chance > 0.8 > found["gate"].left.chance


@pytest.mark.parametrize("shape", [(60, 24), (24, 60), (30, 30)])
@pytest.mark.parametrize("rank", [1, 12])
def test_chance_and_its_spread_are_those_of_changes_that_are_turned(shape, rank) -> None:
    rng = np.random.default_rng(2)
    w = matrix(rng, *shape)
    t = rng.normal(size=(shape[0], rank)) @ rng.normal(size=(rank, shape[1]))
    drawn = [moved(w, turn(rng, shape[0]) @ t @ turn(rng, shape[1])) for _ in range(150)]
    told = moved(w, t)
    for side in ("left", "right"):
        shares = np.array([getattr(one, side).share for one in drawn])
        own = getattr(told, side)
        assert shares.mean() == pytest.approx(own.chance, abs=5 * own.spread / np.sqrt(150) + 1e-9)
        assert shares.std() == pytest.approx(own.spread, rel=0.25, abs=1e-9)


@pytest.mark.parametrize(
    ("size", "cosine"), [(0.01, 0.99995), (0.02, 0.9998), (0.05, 0.99875), (0.1, 0.9950)]
)
def test_cosines_of_weights_follow_from_the_size_of_the_change(size, cosine) -> None:
    rng = np.random.default_rng(3)
    w, t = rng.normal(size=(2, 200, 100))
    t -= w * np.vdot(w, t) / np.vdot(w, w)
    t *= size * np.linalg.norm(w) / np.linalg.norm(t)
    found = moved(w, t)
    assert found.size == pytest.approx(size, rel=1e-9)
    assert found.cosine == pytest.approx(1 / np.sqrt(1 + size**2), abs=1e-9)
    assert found.cosine == pytest.approx(cosine, abs=1e-4)
    # A change along the matrix is none of its direction, however large.
    assert moved(w, 3 * w).cosine == pytest.approx(1, abs=1e-12)
    assert cosine_after(1, 4, -2) == pytest.approx(-1)


def test_the_floor_of_bfloat16_is_what_rounding_does() -> None:
    import torch

    rng = np.random.default_rng(0)
    w = (0.02 * rng.normal(size=(300, 300))).astype(np.float32)
    rounded = torch.from_numpy(w).to(torch.bfloat16).float().numpy()
    found = moved(w, rounded - w)
    assert found.size == pytest.approx(0.0017, rel=0.1)
    assert found.floor == pytest.approx(found.size, rel=0.01)
    # Of noise the share inside is known beforehand, on both sides.
    assert found.left.share == pytest.approx(found.left.noise, abs=4e-3)
    assert found.right.share == pytest.approx(found.right.noise, abs=4e-3)
    assert step_of(np.float32([1.0, 1.5, -2.0, 0.0]), 7).tolist() == [2**-7, 2**-7, 2**-6, 0]


@pytest.mark.parametrize(
    ("size", "cosine", "zeros"),
    [
        (0.001, 0.63, 0.78),
        (0.002, 0.81, 0.60),
        (0.005, 0.95, 0.32),
        (0.014, 0.993, 0.13),
    ],  # fmt: skip
)
def test_changes_below_the_floor_are_mostly_rounding(size, cosine, zeros) -> None:
    import torch

    def kept(values: np.ndarray) -> np.ndarray:
        return torch.from_numpy(values).to(torch.bfloat16).float().numpy()

    rng = np.random.default_rng(0)
    w = kept((0.02 * rng.normal(size=(300, 300))).astype(np.float32))
    t = (size * 0.02 * rng.normal(size=w.shape)).astype(np.float32)
    stored = kept(w + t) - w
    found = moved(w, stored)
    assert np.vdot(stored, t) / np.linalg.norm(stored) / np.linalg.norm(t) == pytest.approx(
        cosine, abs=0.02
    )
    assert found.zeros == pytest.approx(zeros, abs=0.02)


def test_the_number_of_directions_of_a_change() -> None:
    rng = np.random.default_rng(4)
    w = matrix(rng, WIDTH, WIDTH)
    basis = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    found = moved(w, basis[:, :5] @ basis[:5])
    assert found.directions == pytest.approx(5, rel=1e-6)
    assert found.effective_rank == pytest.approx(5, rel=1e-6)
    nothing = moved(w, np.zeros_like(w))
    assert np.isnan(nothing.left.share) and np.isnan(nothing.effective_rank)
    assert nothing.size == 0 and nothing.zeros == 1


@pytest.mark.parametrize("shape", [(40, 15), (15, 40)])
def test_agreement_is_held_against_rows_that_are_dealt_out(shape) -> None:
    rng = np.random.default_rng(5)
    shared = np.outer(rng.normal(size=shape[0]) ** 2, rng.normal(size=shape[1]))
    a, b = rng.normal(size=(2, *shape)) + shared
    told = agreement(a, b)
    drawn = np.array([np.vdot(a[rng.permutation(len(a))], b) for _ in range(4000)])
    assert told.dealt == pytest.approx(drawn.mean(), abs=5 * told.spread / np.sqrt(4000))
    assert told.spread == pytest.approx(drawn.std(), rel=0.1)
    signs = [np.vdot(rng.choice([-1, 1], size=(len(a), 1)) * a, b) for _ in range(4000)]
    assert told.flipped == pytest.approx(np.std(signs), rel=0.1)
    # What both have in common by their mean row alone is chance; the rest is not.
    assert told.z > 3 and told.cosine > told.chance
    alone = agreement(*rng.normal(size=(2, *shape)))
    assert abs(alone.z) < 4 and alone.width == pytest.approx(1 / np.sqrt(a.size), rel=0.3)


def test_agreement_of_a_model_is_that_of_its_matrices_together() -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=(2, 30, 12))
    whole = agreement(a[:10], b[:10]) + agreement(a[10:], b[10:])
    assert whole.cosine == pytest.approx(
        np.vdot(a, b) / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-12
    )
    assert (agreement(a, a) + agreement(b, b)).cosine == pytest.approx(1)
    assert agreement(a, -a).cosine == pytest.approx(-1)
