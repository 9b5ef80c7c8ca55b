"""What every test runs under: the CPU with two devices, quick compilation and a cache of it, strict promotion.

The environment is set before JAX is imported, and so holds for the programs that tests start as well; the calls to
`jax.config.update` repeat it for the case that a pytest plugin imported JAX first.
"""

import os
from pathlib import Path

import hypothesis
import jaxtyping
import pytest

CACHE = Path(__file__).parent.parent / ".jax_cache"

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_NUM_CPU_DEVICES", "2")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
# Most programs of the tests run once, on small arrays: compiling them is most of the work, and half of that is LLVM's.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import jax  # noqa: E402 (the environment comes first)

jax.config.update("jax_platforms", os.environ["JAX_PLATFORMS"])
jax.config.update("jax_num_cpu_devices", int(os.environ["JAX_NUM_CPU_DEVICES"]))
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
jax.config.update(
    "jax_persistent_cache_min_compile_time_secs", float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"])
)
jax.config.update("jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] == "1")
# A silent broadcast of (n,) against (m, n) is where a mask meets the wrong axis.
jax.config.update("jax_numpy_rank_promotion", "raise")

# A first example pays for a compilation, so a deadline would test the machine; fixed seeds make a red run repeatable.
hypothesis.settings.register_profile(
    "compressjax",
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("compressjax")


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library as its users run it: annotations are not checked, so that wrong types meet its own errors."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """The directory and the report of one finished compression run, for every test that only reads them."""
    from experiments import compress
    from tests.experiments import tiny

    workdir = tmp_path_factory.mktemp("runs") / "tiny"
    return workdir, compress.run(tiny.config(), workdir, progress=False)


MAPS = Path("/proc/self/maps")
MOST_MAPS = 30_000


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Drops compiled programs before there are too many.

    Each one is mapped into memory in pieces, some 40 per test here; Linux allows a process 65,530 of them, and beyond
    that the next compilation aborts it.
    """
    item.session.stash[TORN_DOWN] = count = item.session.stash.get(TORN_DOWN, 0) + 1
    if count % 50 == 0 and MAPS.exists() and MAPS.read_bytes().count(b"\n") > MOST_MAPS:
        jax.clear_caches()


TORN_DOWN = pytest.StashKey[int]()
LONGEST = ("tests/invariants/test_resume", "tests/experiments/")


def pytest_collection_modifyitems(items: list) -> None:
    """The longest tests first, so that no worker is left with them when the others have finished."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
