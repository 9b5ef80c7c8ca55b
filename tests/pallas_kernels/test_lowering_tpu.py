"""Every TPU kernel is lowered for TPUs, at realistic shapes, on whatever machine runs the tests.

Lowering checks that operations exist and that tiles have shapes the hardware knows; `make aot-tpu` compiles the same.
"""

import importlib.util
from typing import Any

import jax
import pytest
from absl import app

import pallas_kernels as pk
from experiments.aot_tpu import CASES, OPERATIONS, main

PRODUCTS = [(title, operation) for title, case in CASES.items() for operation in case.operations()]


def kernels(function: Any, *arguments: Any) -> int:
    """How many there are in the program for a TPU."""
    text = jax.jit(function).trace(*arguments).lower(lowering_platforms=("tpu",)).as_text()
    return text.count("@tpu_custom_call")


@pytest.mark.parametrize("title, operation", PRODUCTS)
def test_every_product_is_one_kernel(title: str, operation: str) -> None:
    assert kernels(OPERATIONS[operation], *CASES[title].arguments()) == 1


# The product, the gradient of its input, and for blocks the one of the weights: the others leave that to XLA.
@pytest.mark.parametrize(
    "title, count", [("blocks 128x128, ragged", 3), ("blocks, int8", 3), ("2:4, bf16", 2), ("int4, bf16", 2)]
)
def test_gradients_are_kernels(title: str, count: int) -> None:
    def gradients(x: Any, w: Any, bias: Any, g: Any) -> list[Any]:
        _, pull = jax.vjp(
            lambda *a: pk.matmul(*a, jax.nn.gelu, implementation="mosaic_tpu", platform="tpu"), x, w, bias
        )
        return [leaf for leaf in jax.tree.leaves(pull(g)) if leaf.dtype != jax.dtypes.float0]

    assert kernels(gradients, *CASES[title].arguments()) == count


def test_the_way_to_the_compiler_is_named_where_it_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(app.UsageError, match="make aot-tpu"):
        main(["aot_tpu"])
