"""A comparison of channel scores on a tiny network end to end, its ablations, and bad input."""

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import cdc as configs
from experiments import cdc, cdc_cells, cdc_config, teaching
from experiments.channel_scores import NAMES, ChannelScores, pool
from experiments.pruning_tasks import PruningTask
from experiments.schema import Fit
from experiments.task_config import Task


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config, workdir = configs.get_config("tiny"), tmp_path_factory.mktemp("run")
    return config, workdir, cdc.run(config, workdir, progress=False)


@pytest.fixture(scope="module")
def task(finished):
    config, workdir, _ = finished
    return PruningTask(config.tasks[0], workdir / config.tasks[0].name, progress=False)


def test_every_part_has_its_cells_with_all_seeds(finished):
    config, _, report = finished
    rows = report["tasks"][0]["rows"]
    count = {part: sum(row["part"] == part for row in rows) for part in ("amounts", "coarse", "automatic", "teaching")}
    assert count == {"amounts": 4, "coarse": 1, "automatic": 1, "teaching": 4}
    assert all(row["test"]["n"] == config.repeats for row in rows)


def test_a_score_of_weights_beats_luck_and_retraining_helps(finished):
    rows = {row["score"]: row for row in finished[2]["tasks"][0]["rows"] if row["part"] == "amounts"}
    assert rows["l1"]["test"]["mean"] > rows["random"]["test"]["mean"] + 0.1
    assert all(row["test"]["mean"] > row["test_before"]["mean"] for row in rows.values())


def test_retraining_on_labels_alone_is_the_plain_retraining(finished):
    rows = finished[2]["tasks"][0]["rows"]
    plain = next(r for r in rows if r["part"] == "amounts" and r["score"] == "symmetric_divergence")
    alone = next(r for r in rows if r["part"] == "teaching" and r["kind"] == "none")
    assert alone["test"] == plain["test"]


def test_a_second_run_computes_nothing(finished):
    config, workdir, report = finished
    before = (workdir / "metrics.jsonl").read_bytes()
    (workdir / "report.json").unlink()
    again = cdc.run(config, workdir, progress=False)
    assert (workdir / "metrics.jsonl").read_bytes() == before
    assert again["tasks"] == report["tasks"]
    assert "data:image" in (workdir / "report.html").read_text()


def test_automatic_amounts_cost_no_more_than_the_uniform_cut(task):
    keep = cdc_cells.automatic(task, ChannelScores(task).score("l1"), 0.5)
    price = task.knife.price("macs")
    widths = {name: int(vector.sum()) for name, vector in keep.items()}
    assert float(price(widths)) <= float(price(cdc_cells.uniform(task, 0.5))) * (1 + 1e-5)


def test_automatic_amounts_reach_from_nothing_to_almost_everything(task):
    score = ChannelScores(task).score("l1")
    assert all(vector.all() for vector in cdc_cells.automatic(task, score, 0.01).values())
    keep = cdc_cells.automatic(task, score, 0.95)
    widths = {name: int(vector.sum()) for name, vector in keep.items()}
    price = task.knife.price("macs")
    assert float(price(widths)) <= float(price(cdc_cells.uniform(task, 0.95))) * (1 + 1e-5)


def test_every_score_has_one_finite_value_per_channel(task):
    seen = ChannelScores(task, {"mine": "l2 * square(gP - gQ)"})
    for name in (*NAMES, "mine"):
        found = seen.score(name)
        for group in task.groups:
            assert np.shape(found[group.name]) == (group.size,), name
            assert np.isfinite(found[group.name]).all(), name
    with pytest.raises(ValueError, match="There is no score 'luck'"):
        seen.score("luck")


def test_other_images_and_seeds_give_other_scores_but_of_weights(task):
    one, other = ChannelScores(task), ChannelScores(task, offset=250)
    for name in ("random", "taylor", "symmetric_divergence", "l1"):
        same = all(np.array_equal(one.score(name)[g.name], other.score(name)[g.name]) for g in task.groups)
        assert same == (name == "l1"), name


def test_seeds_of_expressions_rank_as_the_library_does(task):
    """The formulas of the seeds against the scores of the library: same statistics, two implementations."""
    seen = ChannelScores(task, {"fdr": "square(gP - gQ) / eps(vP + vQ)"})
    formula, direct = seen.score("fdr"), seen.score("fisher_ratio")
    for group in task.groups:
        # A formula sums over classes, the score takes the mean.
        np.testing.assert_allclose(formula[group.name] / 10, direct[group.name], rtol=2e-4)


def test_coarse_labels_change_the_early_half_only(task):
    seen = ChannelScores(task)
    early = cdc_cells.coarse_early(task, seen, 4)["fisher_ratio"]
    fine = seen.score("fisher_ratio")
    first, last = sorted(cdc_cells.depths(task), key=cdc_cells.depths(task).get)
    np.testing.assert_array_equal(early[last], fine[last])
    assert not np.allclose(early[first], fine[first])


def test_pooling_takes_means_and_leaves_small_maps_alone():
    x = jnp.arange(36.0).reshape(1, 6, 6, 1)
    np.testing.assert_allclose(pool(x, side=2)[0, :, :, 0], [[7, 10], [25, 28]])
    np.testing.assert_array_equal(pool(x[:, :2, :2], side=2), x[:, :2, :2])
    assert pool(jnp.ones((2, 144, 5))).shape == (2, 16, 5)
    assert pool(jnp.ones((2, 5))).shape == (2, 5)


def test_discriminant_help_pulls_the_features_of_a_cut_network_to_the_teacher(task):
    """At a weight that drowns the labels, the loss on discriminants is smaller than after plain retraining."""
    from compressjax import training

    keep = task.keep(ChannelScores(task).score("l1"), cdc_cells.uniform(task, 0.5))
    model, params = task.cut(keep)
    path = cdc_cells.middle(task)
    settings = cdc_config.Teaching(inner=100.0, refit=10, images=250)
    x = next(task.batches(64, 64))[0]
    theirs = teaching.features_of(task.model, path, 64, train=False)
    ours = teaching.features_of(model, path, 64, train=False)
    fixed = teaching.directions(task, theirs, task.params, settings, 5)

    def distance(kind):
        trained = teaching.taught(task, model, params, 0, kind=kind, settings=settings, path=path)
        bases = teaching.directions(task, ours, trained, settings, 5), fixed
        return float(training.discriminant_loss(ours(trained, x), theirs(task.params, x), *bases))

    assert distance("discriminant") < 0.8 * distance("none")


def test_retraining_again_with_one_seed_is_the_same_and_with_another_is_not(task):
    keep = task.keep(ChannelScores(task).score("l2"), cdc_cells.uniform(task, 0.5))
    model, params = task.cut(keep)
    first, again, other = (task.retrain(model, params, seed=seed) for seed in (0, 0, 1))
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), first, again)))
    assert not all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), first, other)))


def test_scores_that_are_not_finite_are_refused(task):
    bad = {group.name: np.full(group.size, np.nan) for group in task.groups}
    with pytest.raises(ValueError, match="are not finite"):
        task.keep(bad, cdc_cells.uniform(task, 0.5))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"tasks": ()}, "must each name at least one"),
        ({"scores": ("luck",)}, r"config.scores\[0\] is 'luck'"),
        ({"formulas": {"l1": "gP"}}, "config.formulas has 'l1', which is the name of a score"),
        ({"scores": ("fisher_ratio", "l1", "l1")}, r"config.scores\[2\] is 'l1' again"),
        ({"removed": (0.5, 0.5)}, r"config.removed\[1\] is 0.5 again"),
        ({"automatic": ("l1", "l1")}, r"config.automatic\[1\] is 'l1' again"),
        ({"teaching": cdc_config.Teaching(kinds=("hint", "hint"))}, r"config.teaching.kinds\[1\] is 'hint' again"),
        ({"teaching": cdc_config.Teaching(kinds=("discriminant",), images=20)}, "config.teaching.images is 20; .*64"),
        ({"removed": (1.0,)}, r"config.removed\[0\] is 1.0; it is a share"),
        ({"scores": ("l1",)}, "config.coarse needs one of"),
        ({"tasks": (Task(name="a", kept={"x": 1}),)}, r"config.tasks\[0\].kept has no use"),
        ({"tasks": (Task(),)}, "name is empty"),
        ({"tasks": (Task(name="a"), Task(name="a"))}, "which another task has too"),
        ({"teaching": cdc_config.Teaching(kinds=("magic",))}, r"config.teaching.kinds\[0\] is 'magic'"),
        ({"tasks": (Task(name="a", retrain=Fit(learning_rate=0.0)),)}, "learning_rate is 0.0"),
    ],
)
def test_bad_configurations_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        cdc_config.check(dataclasses.replace(configs.get_config("tiny"), **change))


def test_all_profiles_are_valid():
    for profile in ("full", "resnet20", "resnet56"):
        cdc_config.check(configs.get_config(profile))
    with pytest.raises(ValueError, match="Unknown profile"):
        configs.get_config("huge")


def test_scores_may_see_fewer_images_than_a_batch(task):
    whole, settings = ChannelScores(task), task.task
    few = copy.copy(task)
    few.task = dataclasses.replace(settings, score_images=100)
    for name in ("symmetric_divergence", "mmd", "f1", "taylor"):
        found = ChannelScores(few).score(name)
        assert found.keys() == whole.score(name).keys()
        assert all(np.isfinite(value).all() for value in found.values())
