"""The plots of searches: what is drawn is what the records say."""

import jax
import jax.numpy as jnp
import numpy as np
from evosax.algorithms import SNES

from compressjax.search import NSGA2, Driver, Float, Space, front, random_search, strategy, to_json
from experiments.search_plots import curves, fitness_by_generation, fronts, on_front
from experiments.style import render

SPACE = Space({"x": Float(0.0, 1.0, size=2)})


def searched(algorithm, loss):
    driver = Driver(SPACE, algorithm, loss)
    return [to_json(r) for _, found in driver.run(driver.start(jax.random.key(0)), 5) for r in found]


def single(designs, key):
    x = designs["x"][:, 0]
    return jnp.where(x < 0.1, jnp.nan, jnp.square(x - 0.3))


def double(designs, key):
    x = designs["x"]
    return jnp.where(x[:, 1:] < 0.1, jnp.nan, jnp.stack([x[:, 0], 1 - x[:, 0] + x[:, 1]], axis=1))


def test_best_and_median():
    runs = {
        "SNES": searched(strategy(SNES, SPACE, 16), single),
        "random": searched(random_search(SPACE, 16), single),
    }
    figure = fitness_by_generation(runs, "error")
    assert len(figure.axes[0].lines) == 4
    for i, records in enumerate(runs.values()):
        assert any(r["failed"] for r in records)
        x, best, median = curves(records)
        assert x.tolist() == [16, 32, 48, 64, 80]
        assert best[-1] == min(r["fitness"][0] for r in records)
        assert np.all(np.diff(best) <= 0)
        assert np.all(median >= best)
        assert median.max() < 1.0  # failures would be 1e30
        assert np.array_equal(figure.axes[0].lines[2 * i].get_ydata(), best)
    assert render(figure) == render(fitness_by_generation(runs, "error"))


def test_only_the_last_fidelity_is_drawn():
    plain = {"generation": 0, "failed": False}
    records = [plain | {"fitness": [-9.0], "fidelity": 0}, plain | {"fitness": [2.0], "fidelity": 1}]
    assert curves(records)[1].tolist() == [2.0]


def test_the_front_is_that_of_the_library():
    records = searched(strategy(NSGA2, SPACE, 16), double)
    points = np.array([r["fitness"] for r in records if not r["failed"]])
    mask = np.asarray(front(jnp.asarray(points, jnp.float32)))
    assert {tuple(p) for p in points[on_front(points)]} == {tuple(p) for p in points[mask]}
    figure = fronts({"NSGA-II": records}, ("cost", "error"))
    assert f"{len(on_front(points))} points" in figure.axes[0].get_legend_handles_labels()[1][0]
    assert render(figure).startswith(b"<?xml")


def test_nothing_to_draw():
    failed = [{"generation": 0, "failed": True, "fitness": [1e30], "fidelity": 0}]
    assert fitness_by_generation({"a": failed}) is None
    assert fronts({"a": []}, ("x", "y")) is None
