"""The compiled CPU kernels: law 5, how they are built and kept, and what they refuse."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pallas_kernels as pk
from pallas_kernels import native
from pallas_kernels.native import _build
from tests.pallas_kernels import cases

needs_compiler = pytest.mark.skipif(not native.available(), reason="no C++ compiler to build the native kernels with")

# All ways through the kernels: single weights, vectors along either side, tiles of 4 and rests, several parts.
BLOCKS = [(1, 1), (1, 16), (16, 1), (4, 4), (8, 8), (16, 16), (5, 3), (2, 6), (12, 20), (64, 64)]
RIGHT = 1e-6


def problem(k: int, n: int, block: tuple[int, int], rows: int, density: float = 0.3) -> tuple[Any, ...]:
    """Packed weights, x, bias and a cotangent."""
    rng = np.random.default_rng(rows)
    x, bias, g = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((rows, k), n, (rows, n)))
    return cases.blocks(k, n, block, density), x, bias, g


def wide(x: Any) -> np.ndarray:
    return np.asarray(x, np.float64)


def check(w: Any, x: Any, bias: Any, g: Any) -> None:
    """Law 5 for the three products, in one compiled function."""

    @jax.jit
    def products(x: Any, w: Any, bias: Any, g: Any) -> tuple[Any, ...]:
        return (
            pk.matmul(x, w, bias, implementation="native"),
            pk.matmul_transposed(g, w, implementation="native"),
            pk.outer(x, g, w, implementation="native"),
        )

    y, dx, dvalues = products(x, w, bias, g)
    assert cases.error(y, wide(x) @ wide(w.todense()) + wide(bias)) < RIGHT
    assert cases.error(dx, wide(g) @ wide(w.todense()).T) < RIGHT
    live = np.asarray(w.live)[:, None, None]
    assert cases.error(dvalues, np.where(live, w.gather(jnp.asarray(wide(x).T @ wide(g))), 0)) < RIGHT


@needs_compiler
@pytest.mark.parametrize("rows", [1, 2, 7, 16, 33])
@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_products_are_those_of_the_dense_matrix(block: tuple[int, int], rows: int) -> None:
    ragged = rows % 2
    check(*problem(64 - ragged, 72 - ragged, block, rows))


@needs_compiler
@pytest.mark.parametrize("block", [(1, 1), (4, 4), (16, 16)], ids=str)
def test_a_matrix_without_blocks_gives_the_bias(block: tuple[int, int]) -> None:
    w, x, bias, _ = problem(33, 17, block, 5, density=0.0)
    y = pk.matmul(x, w, bias, implementation="native")
    np.testing.assert_array_equal(y, np.broadcast_to(bias, (5, 17)))


@needs_compiler
@pytest.mark.parametrize("block", [(1, 1), (3, 1), (32, 32)], ids=str)
def test_large_panels_are_worked_off_in_parts(block: tuple[int, int]) -> None:
    # 64 lanes x 2200 inputs exceed what is worked on at a time; 130 rows are three panels; threads get pieces.
    check(*problem(2200, 70, block, 130, 0.1))


@needs_compiler
def test_blocks_repeated_by_padding_count_once() -> None:
    w, x, *_ = problem(24, 20, (4, 4), 3)
    longer = pk.BlockSparse.from_dense(np.asarray(w.todense()), (4, 4), length=40)
    assert cases.error(pk.matmul(x, longer, implementation="native"), wide(x) @ wide(w.todense())) < RIGHT


@needs_compiler
def test_no_rows_give_no_rows() -> None:
    w, *_ = problem(24, 20, (4, 4), 1)
    empty = jnp.zeros((0, 24))
    assert pk.matmul(empty, w, implementation="native").shape == (0, 20)
    assert not pk.outer(empty, jnp.zeros((0, 20)), w, implementation="native").any()


@needs_compiler
@pytest.mark.parametrize("rows", [1, 9])
def test_gradients_are_those_of_the_dense_product(rows: int) -> None:
    w, x, bias, g = problem(24, 20, (4, 4), rows, density=0.5)

    def loss(x: Any, values: Any, bias: Any) -> Any:
        return (pk.matmul(x, w.with_values(values), bias, jax.nn.gelu, implementation="native") * g).sum()

    def dense_loss(x: Any, values: Any, bias: Any) -> Any:
        return (jax.nn.gelu(x @ w.with_values(values).todense() + bias[None]) * g).sum()

    got = jax.jit(jax.grad(loss, (0, 1, 2)))(x, w.values, bias)
    dx, dvalues, dbias = jax.jit(jax.grad(dense_loss, (0, 1, 2)))(x, w.values, bias)
    want = dx, jnp.where(w.live[:, None, None], dvalues, 0), dbias
    assert all(cases.error(a, b) < 10 * RIGHT for a, b in zip(got, want, strict=True))


# (batch, height, width, channels): groups of images and a rest, rows in pieces, rows that do not fill their vectors.
IMAGES = [(1, 5, 40, 4), (3, 4, 4, 8), (6, 3, 3, 8), (21, 2, 2, 4), (2, 3, 130, 4), (9, 6, 9, 12), (1, 2, 2, 70)]
WINDOWS = {
    "same": dict(window=(3, 3)),
    "valid": dict(window=(2, 2), padding="VALID"),
    "strided": dict(window=(3, 2), strides=(2, 3), padding=((1, 2), (0, 1))),
    "dilated": dict(window=(2, 3), dilation=(1, 2), padding="SAME"),
    "strided and dilated": dict(window=(2, 3), strides=(2, 2), dilation=(3, 2), padding=((3, 3), (4, 2))),
}


CONVOLUTIONS = [(name, images) for name in ("same", "strided and dilated") for images in IMAGES]
CONVOLUTIONS += [(name, images) for name in ("valid", "strided", "dilated") for images in IMAGES[5:]]


@needs_compiler
@pytest.mark.parametrize("window, images", CONVOLUTIONS, ids=str)
def test_convolutions_are_the_products_of_their_patches(
    window: str, images: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "FEW_POSITIONS", 0)
    how: dict[str, Any] = WINDOWS[window]
    taps, channels = how["window"], images[-1]
    blocks = {4: (4, 4), 8: (16, 8), 12: (5, 3), 70: (1, 1)}  # within a tap, over two, over a part, single weights
    rng = np.random.default_rng(0)
    w = cases.blocks(taps[0] * taps[1] * channels, 10, blocks[channels], 0.5)
    x, bias = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in (images, 10))
    y = pk.conv(x, w, bias, implementation="native", **how)
    patches = pk.patches(x, taps, *(how.get(key, usual) for key, usual in USUAL.items()))
    assert y.shape == (*patches.shape[:-1], 10)
    assert cases.error(y, wide(patches) @ wide(w.todense()) + wide(bias)) < RIGHT


USUAL: dict[str, Any] = {"strides": (1, 1), "padding": "SAME", "dilation": (1, 1)}


@needs_compiler
def test_images_larger_than_a_window_of_memory_are_worked_off_in_bands() -> None:
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(1, 40, 12, 96)), jnp.float32)
    w = cases.blocks(9 * 96, 70, (16, 16), 0.1)
    y = pk.conv(x, w, implementation="native", window=(3, 3))
    assert cases.error(y, wide(pk.patches(x, (3, 3))) @ wide(w.todense())) < RIGHT


@needs_compiler
def test_gradients_of_a_convolution_are_those_of_its_patches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "FEW_POSITIONS", 0)
    w = cases.blocks(9 * 4, 6, (4, 3), 0.5)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 4, 4)), jnp.float32)

    def gradients(implementation: str) -> Any:
        def loss(x: Any, values: Any, bias: Any) -> Any:
            y = pk.conv(x, w.with_values(values), bias, jax.nn.silu, window=(3, 3), implementation=implementation)
            return (y**2).sum()

        return jax.jit(jax.grad(loss, (0, 1, 2)))(x, w.values, jnp.arange(6.0))

    pairs = zip(gradients("native"), gradients("xla"), strict=True)
    assert all(cases.error(got, want) < 10 * RIGHT for got, want in pairs)


@needs_compiler
@pytest.mark.parametrize("rows", [1, 3, 4])
@pytest.mark.parametrize("group", [67, 1], ids=str)
def test_int8_codes_give_the_product_of_their_weights(group: int, rows: int) -> None:
    dense = cases.weights(67, 83)
    w = pk.Quantized.from_dense(dense, 8, group)
    rng = np.random.default_rng(rows)
    x, bias = (jnp.asarray(rng.normal(size=size), jnp.float32) for size in ((rows, 67), 83))
    y = pk.matmul(x, w, bias, implementation="native")
    assert cases.error(y, wide(x) @ wide(w.todense()) + wide(bias)) < RIGHT


@needs_compiler
def test_the_gradient_of_a_product_with_codes_reaches_the_scale() -> None:
    w = cases.FORMATS["int8"]()
    x = jnp.ones((3, 24))

    def loss(implementation: str) -> Any:
        return jax.grad(
            lambda x, w: (pk.matmul(x, w, implementation=implementation) ** 2).sum(), (0, 1), allow_int=True
        )

    got, want = loss("native")(x, w), loss("reference")(x, w)
    assert cases.error(got[0], want[0]) < 10 * RIGHT
    assert cases.error(got[1].scale, want[1].scale) < 10 * RIGHT


@needs_compiler
def test_vmap_over_activations_and_over_values() -> None:
    w, x, _, _ = problem(24, 20, (4, 4), 6)
    product = wide(x) @ wide(w.todense())
    batches = x.reshape(3, 2, 24)
    y = jax.jit(jax.vmap(lambda x: pk.matmul(x, w, implementation="native")))(batches)
    assert cases.error(y, product.reshape(3, 2, 20)) < RIGHT
    many = jnp.stack([w.values, 2 * w.values])
    y = jax.vmap(lambda v: pk.matmul(x, w.with_values(v), implementation="native"))(many)
    assert cases.error(y, np.stack([product, 2 * product])) < RIGHT


@needs_compiler
def test_lists_out_of_range_are_an_error_not_a_crash() -> None:
    w, x, *_ = problem(24, 20, (4, 4), 3)
    damaged = jax.tree.map(lambda leaf: leaf, w)
    object.__setattr__(damaged, "rows", damaged.rows + 100)
    with pytest.raises(jax.errors.JaxRuntimeError, match="out of range"):
        pk.matmul(x, damaged, implementation="native").block_until_ready()


@pytest.mark.parametrize(
    "w, dtype, clause",
    [
        (cases.FORMATS["2:4"](), np.float32, "multiplies BlockSparse and Quantized, not NM"),
        (cases.FORMATS["int8 blocks"](), np.float32, "not codes"),
        (cases.FORMATS["codebook"](), np.float32, "without a codebook only"),
        (cases.blocks(), np.float16, "activations are float16"),
        (cases.cast(cases.blocks(), jnp.bfloat16), np.float32, "weights are bfloat16"),
    ],
    ids=["format", "blocks of codes", "codebook", "activations", "weights"],
)
def test_refusals_say_why(w: Any, dtype: Any, clause: str) -> None:
    x = jnp.ones((2, w.shape[0]), dtype)
    with pytest.raises(ValueError, match=f"cannot compute matmul.*{clause}"):
        pk.matmul(x, w, implementation="native")


def test_many_rows_of_codes_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 4 rows of x, not 5"):
        pk.matmul(jnp.ones((5, 24)), cases.FORMATS["int8"](), implementation="native")


def test_without_a_compiler_it_refuses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert not native.available()
    with pytest.raises(ValueError, match=r"no C\+\+ compiler was found: install g\+\+ or set CXX"):
        pk.matmul(jnp.ones((2, 24)), cases.blocks(), implementation="native")
    with pytest.raises(ValueError, match=r"no C\+\+ compiler was found"):
        _build.load(tmp_path)


@needs_compiler
def test_a_compiler_that_fails_is_quoted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", f"{_build.compiler()[0]} --no-such-option")
    with pytest.raises(ValueError, match=r"do not compile with .*no-such-option"):
        _build.load(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def quick_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A compiler that copies the library that is loaded already, and counts how often; returns where it counts."""
    built, count = native.library()._name, tmp_path / "count"
    script = tmp_path / "compiler.sh"
    script.write_text(
        f'[ "$1" = --version ] && echo 1 && exit\necho . >> "{count}"\nfor output; do :; done; cp "{built}" "$output"\n'
    )
    monkeypatch.setenv("CXX", f"sh {script}")
    return count


@needs_compiler
@pytest.mark.faults
@pytest.mark.parametrize("damage", ["cut", "removed", "note cut", "note scribbled on"])
def test_damaged_files_are_built_again(damage: str, tmp_path: Path, quick_compiler: Path) -> None:
    folder = tmp_path / "cache"
    _build.load(folder)
    _build.load(folder)
    assert quick_compiler.read_text() == ".\n"
    (library,) = folder.glob("*.so")
    (note,) = set(folder.iterdir()) - {library}
    before = {path: path.read_bytes() for path in (library, note)}
    if damage in ("cut", "removed"):
        library.unlink()  # never cut in place: this process runs it
    if damage == "cut":
        library.write_bytes(before[library][:1000])
    if "note" in damage:
        note.write_bytes(b"" if damage == "note cut" else b"\xff/\x00..")
    assert _build.load(folder).cjx_vector_width() >= 4
    assert quick_compiler.read_text() == ".\n.\n"
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


@needs_compiler
@pytest.mark.faults
def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ValueError, match="set XDG_CACHE_HOME"):
        _build.load(tmp_path / "file")


@needs_compiler
@pytest.mark.faults
def test_processes_may_build_at_the_same_time(tmp_path: Path, quick_compiler: Path) -> None:
    code = "import sys; from pathlib import Path; from pallas_kernels.native import _build\n"
    code += "print(_build.load(Path(sys.argv[1])).cjx_vector_width())"
    command = [sys.executable, "-c", code, str(tmp_path / "cache")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    widths = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert widths[0] == widths[1]
    assert int(widths[0]) >= 4
    assert len(list((tmp_path / "cache").iterdir())) == 2
