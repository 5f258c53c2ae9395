"""The search: known minima, what it asks for, and what it does with failures."""

import math

import numpy as np
import pytest

from measurand.tuning.search import search


def least(loss, start, n, **options):
    """The least loss of n points, and the points."""
    points, found = [], []
    asked = search(start, **options)
    u = next(asked)
    while True:
        points.append(u.copy())
        found.append(loss(u))
        try:
            u = asked.send(found[-1])
        except StopIteration:
            break
        if len(found) == n:
            break
    return min(found), points


def bowl(d, seed):
    rng = np.random.default_rng(seed)
    centre, shear = rng.uniform(0.1, 0.9, d), np.eye(d) + 0.4 * rng.standard_normal((d, d))
    return lambda u: float(np.square(shear @ (u - centre)).sum())


@pytest.mark.parametrize(("d", "n", "share"), [(1, 15, 1e-6), (2, 40, 1e-3), (4, 60, 2e-2)])
def test_a_tilted_bowl_is_searched_to_its_bottom(d, n, share):
    for seed in range(5):
        loss = bowl(d, seed)
        found, points = least(loss, [0.5] * d, n, explore=n // 3, seed=seed)
        assert found <= share * max(map(loss, points))
        assert found <= 0.1 * loss(np.full(d, 0.5)) + 1e-6


def test_the_first_point_is_the_start_and_the_same_seed_gives_the_same_points():
    runs = [least(bowl(3, 1), [0.2, 0.5, 0.9], 30, explore=8, seed=s)[1] for s in (4, 4, 5)]
    assert runs[0][0].tolist() == [0.2, 0.5, 0.9]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_exploring_points_fill_the_box_and_half_of_them_stay_near_the_start():
    _, points = least(lambda u: 1.0, [0.0, 0.0], 33, explore=32, seed=0)
    wide, near = np.array(points[1::2]), np.array(points[2::2])
    assert len(wide) == len(near) == 16
    assert ((wide >= 0) & (wide <= 1)).all() and (near <= 0.5).all()
    quarters = {(a > 0.5, b > 0.5) for a, b in wide}
    assert len(quarters) == 4


def test_it_leaves_the_box_where_it_may_and_stops_at_the_edge_where_it_may_not():
    def loss(u):
        return float((u[0] - 1.7) ** 2)

    free, _ = least(loss, [0.5], 40, explore=4, reach=[(-math.inf, math.inf)])
    held, points = least(loss, [0.5], 40, explore=4, reach=[(0.0, 1.0)])
    assert free < 1e-6 and held == pytest.approx(0.49)
    assert max(p[0] for p in points) == 1.0


def test_what_makes_no_difference_is_left_alone_and_failures_are_avoided():
    def loss(u):
        return math.inf if u[0] > 0.6 else float((u[0] - 0.55) ** 2)

    found, points = least(loss, [0.5, 0.5], 200, explore=4, seed=1)
    assert found < 1e-5
    refined = np.array(points[5:])
    others = refined[:, 1] != refined[0, 1]
    assert others.sum() <= 2 and len(points) < 60  # one step up, one down, never again
