"""The sharded training steps, written for TPUs on a machine without one."""

import pytest
from jax.sharding import AbstractMesh, AxisType

from experiments.aot_steps import STEPS, lower
from experiments.distributed import AXES


@pytest.mark.parametrize("name", [name for name in STEPS if "scanned" not in name])
def test_a_step_over_a_mesh_of_eight_is_written_for_tpus(name):
    mesh = AbstractMesh((8, 1, 1), AXES, axis_types=(AxisType.Auto,) * 3)
    text = lower(STEPS[name], mesh).as_text()
    assert "mhlo.num_partitions = 8" in text
    images = next(line for line in text.splitlines() if "func.func public @main" in line)
    assert images.count('{"data"}') >= 2  # images and labels
