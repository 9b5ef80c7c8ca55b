"""The choice of a form: by measurement, with a reason."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pallas_kernels as pk
from tests.pallas_kernels.cases import FORMATS, blocks, error


def measured(form, speedups, block=(4, 4), rows=16):
    """A curve at densities 0.5 and 0.1."""
    return [
        pk.Measurement(form, block, rows, (64, 64), density, 1.0, speedup)
        for density, speedup in zip((0.5, 0.1), speedups, strict=True)
    ]


TABLE = pk.Calibration(
    "by hand",
    (
        *measured("dense", (0.5, 0.5)),
        *measured("dense, outputs first", (1.0, 1.0)),
        *measured("segments", (0.5, 2.0)),
        *measured("sliced", (0.4, 4.0)),
        *measured("segments", (3.0, 3.0), block=(16, 16)),
        *measured("sliced", (1.0, 1.0), block=(16, 16)),
        *measured("native", (9.0, 9.0), rows=1),
    ),
)


def test_prediction_interpolates_and_ends_flat():
    predict = TABLE.predict
    assert predict("sliced", (4, 4), 16, (64, 64), 0.1) == pytest.approx(4)
    assert predict("sliced", (4, 4), 16, (64, 64), 0.05**0.5) == pytest.approx((4 * 0.4) ** 0.5)
    assert predict("sliced", (4, 4), 16, (64, 64), 0.55) == pytest.approx(0.4)
    assert predict("sliced", (4, 4), 16, (64, 64), 0.9) == 0
    assert predict("dense", (4, 4), 16, (64, 64), 0.9) == 0.5
    assert predict("segments", (8, 16), 16, (64, 64), 0.5) == pytest.approx(3)
    assert predict("unheard of", (4, 4), 16, (64, 64), 0.5) == 0
    # The nearest product decides which forms were measured.
    assert predict("native", (4, 4), 16, (64, 64), 0.1) == 0
    assert predict("native", (4, 4), 2, (64, 64), 0.1) == pytest.approx(9)
    assert predict("sliced", (4, 4), 1, (64, 64), 0.1) == 0


def test_forms_measured_for_sparser_products_promise_nothing():
    sparse = pk.Calibration("by hand", (pk.Measurement("segments", (1, 1), 1, (64, 64), 0.1, 1.0, 5.0),))
    assert sparse.predict("segments", (1, 1), 1, (64, 64), 0.05) == pytest.approx(5)
    assert sparse.predict("segments", (1, 1), 1, (64, 64), 0.5) == 0


@pytest.mark.parametrize(
    "density, block, form, kind",
    [(0.1, (4, 4), "sliced", pk.Sliced), (0.5, (4, 4), "dense", pk.Dense), (0.2, (16, 16), "segments", pk.BlockSparse)],
)
def test_the_fastest_form_is_taken(density, block, form, kind):
    w = blocks(64, 64, block, density)
    got = pk.prepare(w, 16, platform="cpu", calibration=TABLE, use_native=False)
    assert isinstance(got.weights, kind)
    assert got.reason.startswith(form)
    assert got.implementation == "xla"
    x = jnp.asarray(np.random.default_rng(0).normal(size=(16, 64)), jnp.float32)
    assert error(jax.jit(pk.matmul)(x, got), np.asarray(x) @ np.asarray(w.todense())) < 1e-5


def test_dense_says_what_sparse_would_have_been():
    got = pk.prepare(blocks(64, 64, (4, 4), 0.5), 16, platform="cpu", calibration=TABLE, use_native=False)
    assert got.weights.transposed
    assert "as fast for blocks of 4x4, 16 rows" in got.reason


def test_native_only_where_wanted():
    w = blocks(64, 64, (4, 4), 0.1)
    assert pk.prepare(w, 1, platform="cpu", calibration=TABLE, use_native=True).implementation == "native"
    assert pk.prepare(w, 1, platform="cpu", calibration=TABLE, use_native=False).implementation == "xla"


def test_calibration_survives_json():
    assert pk.Calibration.from_json(TABLE.to_json()) == TABLE


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_can_be_prepared(name):
    w = FORMATS[name]()
    got = pk.prepare(w, 3, platform="cpu", use_native=False)
    assert error(got.todense(), w.todense()) < 1e-6
    assert got.reason


@pytest.mark.parametrize("platform, kernel", [("tpu", "mosaic_tpu"), ("gpu", "mosaic_gpu")])
def test_other_platforms(platform, kernel):
    dtype = jnp.bfloat16
    w = blocks(256, 256, (128, 128), 0.5)
    w = w.with_values(w.values.astype(dtype))
    assert pk.prepare(w, 512, platform=platform).implementation == kernel
    odd = blocks(24, 20, (4, 4), 0.5)
    got = pk.prepare(odd.with_values(odd.values.astype(dtype)), 512, platform=platform)
    assert isinstance(got.weights, pk.Dense)
    assert f"{kernel} has no kernel here" in got.reason


def test_bad_input():
    with pytest.raises(ValueError, match="rows is 0"):
        pk.prepare(blocks(), 0)
    with pytest.raises(ValueError, match="'abacus'"):
        pk.prepare(blocks(), 1, platform="abacus")


@pytest.mark.parametrize("block, rows, form", [((4, 4), 1, "dense"), ((8, 8), 16, "segments"), ((8, 8), 128, "dense")])
def test_small_blocks_have_no_segments_whatever_was_measured(block, rows, form):
    fast = pk.Calibration(
        "by hand",
        (
            *measured("dense", (1.0, 1.0), block, rows),
            *measured("dense, outputs first", (1.0, 1.0), block, rows),
            *measured("sliced", (0.5, 0.5), block, rows),
            *measured("segments", (9.0, 9.0), block, rows),
        ),
    )
    got = pk.prepare(blocks(64, 64, block, 0.2), rows, platform="cpu", calibration=fast, use_native=False)
    assert got.reason.startswith(form)
