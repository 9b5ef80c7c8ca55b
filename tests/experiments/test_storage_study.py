"""A storage study of a tiny network, its sizes and crossover by hand, and bad input."""

import jax.numpy as jnp
import numpy as np
import pytest

from compressjax import projections, storage
from configs import storage_study as configs
from experiments import storage_study, study_costs, study_report
from experiments.schema import Admm, Fit
from experiments.study_config import KINDS, Scheme, StudyConfig, rules
from experiments.workdir import read_report

SHAPES = {"conv/kernel": (3, 3, 8, 16), "fc/kernel": (64, 10), "fc/bias": (10,)}


def small(kinds, ratios):
    config = configs.get_config("tiny")
    config.widths, config.bits = (16, 8), (2,)
    config.schemes = tuple(Scheme(kind, ratios) for kind in kinds)
    return config


QUICK, ALL = small(("weights", "nm"), (2.0,)), small(KINDS, (2.0, 4.0))


# All kinds compile for minutes.
@pytest.fixture(scope="module", params=[QUICK, pytest.param(ALL, marks=pytest.mark.slow)], ids=["quick", "all"])
def finished(request, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    return workdir, request.param, storage_study.run(request.param, workdir, progress=False)


def test_every_kind_lies_in_its_set_and_has_a_file_for_every_number_of_bits(finished):
    workdir, config, report = finished
    assert [scheme["kind"] for scheme in report["schemes"]] == [scheme.kind for scheme in config.schemes]
    for scheme in report["schemes"]:
        assert [file["bits"] for file in scheme["files"]] == [2, 32]
        for file in scheme["files"]:
            params = storage.load(workdir / f"{file['name']}.cjx").params
            shapes = {f"{layer}/kernel": leaf["kernel"].shape for layer, leaf in params.items()}
            for path, rule in rules(config, scheme["kind"], scheme["asked"], shapes, 10).items():
                kernel = params[path.split("/")[0]]["kernel"]
                assert bool(rule.contains(jnp.asarray(kernel))), (file["name"], path)
                if file["bits"] < 32:
                    assert len(np.unique(np.abs(kernel[kernel != 0]))) <= 2 ** (file["bits"] - 1)
            assert file["bytes"] == (workdir / f"{file['name']}.cjx").stat().st_size


def test_fewer_bits_make_smaller_files(finished):
    _, _, report = finished
    for scheme in report["schemes"]:
        few, many = scheme["files"]
        assert few["bytes"] < many["bytes"]
        # Positions are paid for whatever the bits, so a codec's size grows by less than the bits do.
        assert many["formats"]["relative"] < 16 * few["formats"]["relative"]


def test_the_chosen_rung_is_the_last_within_the_tolerance(finished):
    _, _, report = finished
    least = report["dense"]["validation_accuracy"] - report["config"]["tolerance"]
    for scheme in report["schemes"]:
        within = [row["name"] for row in scheme["rungs"] if row["validation_accuracy"] >= least]
        assert scheme["chosen"] == (within or [scheme["rungs"][0]["name"]])[-1]


def test_the_report_has_advantages_and_times_of_every_kind(finished):
    _, _, report = finished
    kinds = [scheme["kind"] for scheme in report["schemes"]]
    for scheme in report["schemes"][1:]:
        assert scheme["advantage"] == pytest.approx(report["schemes"][0]["ratio"] / scheme["ratio"])
        assert set(scheme["required"]) == {"bitmap", "relative", "csr", "entropy"}
    assert report["latency"]["dense_milliseconds"] > 0
    assert [row["kind"] for row in report["latency"]["schemes"]] == kinds


def test_single_weights_need_a_larger_advantage_at_fewer_bits():
    params = {"fc": {"kernel": np.random.default_rng(0).normal(size=(64, 48)).astype(np.float32)}}
    constraint = projections.Submatrix(12, 16)
    pruned = {"fc": {"kernel": np.asarray(constraint.project(jnp.asarray(params["fc"]["kernel"])))}}
    native = {bits: study_costs.formats(pruned, {"fc/kernel": constraint}, bits)["native"] for bits in (2, 8, 32)}
    needed = study_costs.required(study_costs.single_weights(params, (2, 8, 32)), native, 16.0)
    for codec in ("relative", "csr", "entropy"):
        assert needed[codec][2] > needed[codec][8] > needed[codec][32] > 1, codec
    assert needed["bitmap"][2] is None, "a flag for every weight is more than the whole structured layer"


def test_a_finished_run_is_read_and_not_repeated(finished):
    workdir, config, report = finished
    again = storage_study.run(config, workdir, progress=False)
    assert again == report == read_report(workdir)
    page = (workdir / "report.html").read_text()
    assert "CSR" in page
    assert "image/svg+xml" in page
    assert "N:M" in study_report.headline(report)


def test_sets_keep_the_number_of_weights_that_was_asked_for():
    config = StudyConfig(block=(4, 4), group=8)
    dense = 3 * 3 * 8 * 16 + 640
    for kind in KINDS:
        found = rules(config, kind, 2.0, SHAPES, 10)
        params = {path: jnp.asarray(np.random.default_rng(0).normal(size=SHAPES[path])) for path in found}
        kept = sum(int(rule.support(params[path]).sum()) for path, rule in found.items())
        kept += sum(int(np.prod(SHAPES[path])) for path in ("conv/kernel", "fc/kernel") if path not in found)
        assert kept == pytest.approx(dense / 2, rel=0.1), kind
    assert found["fc/kernel"].filters == 10, "outputs of the network must stay"


def test_sizes_by_hand():
    kernel = np.zeros((8, 4), np.float32)
    kernel[:2, :3] = 1.0
    params = {"fc": {"kernel": kernel, "bias": np.ones(4, np.float32)}}
    sizes = study_costs.formats(params, {"fc/kernel": projections.Submatrix(3, 2)}, 8)
    assert sizes["native"] == 6 * 8 + 8 + 4
    assert sizes["bitmap"] == 6 * 8 + 32
    sizes = study_costs.formats(params, {"fc/kernel": projections.NM(2, 8)}, 8)
    assert sizes["native"] == 6 * (8 + 3)
    sizes = study_costs.formats(params, {"fc/kernel": projections.BlockPunched((4, 2), 4)}, 8)
    assert sizes["native"] == 4 * 2 * 8 + 16


def test_the_required_advantage_is_where_sizes_are_level():
    # Values only: level at the structured network's own ratio.  With an index as long as the value: at twice that.
    sizes = {8: {codec: [8e5 / ratio for ratio in study_costs.GRID] for codec in study_costs.CODECS}}
    assert study_costs.required(sizes, {8: 8e4}, 10.0)["csr"][8] == pytest.approx(1.0)
    sizes = {8: {codec: [16e5 / ratio for ratio in study_costs.GRID] for codec in study_costs.CODECS}}
    assert study_costs.required(sizes, {8: 8e4}, 10.0)["csr"][8] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schemes": (Scheme("weights"),)}, "name 'weights' and at least one other"),
        ({"schemes": (Scheme("weights"), Scheme("rows"))}, r"schemes\[1\].kind is 'rows'"),
        ({"schemes": (Scheme("weights", (4.0, 2.0)), Scheme("nm"))}, "above 1 and rising"),
        ({"bits": (0,)}, "config.bits"),
        ({"block": (4,)}, "config.block"),
        ({"group": 1}, "config.group"),
        ({"tolerance": -0.1}, "config.tolerance"),
        ({"prune": Admm(rho=0.0)}, "config.prune.rho"),
        ({"quantize": Fit(epochs=-1)}, "config.quantize.epochs"),
        ({"latency_batch": 0}, "config.latency_batch"),
    ],
)
def test_bad_configurations_are_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        storage_study.run(StudyConfig(**{"model": "lenet300", **changes}), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
