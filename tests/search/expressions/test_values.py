"""What expressions evaluate to: by hand, by definition, on every path the same."""

from types import SimpleNamespace as Plain

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from compressjax.search import expressions as ex
from compressjax.search.expressions import FORMULAS, PAPER, STATISTICS, Language, Operator, Programs

CHANNELS, CLASSES, POSITIONS, SAMPLES, WEIGHTS = 5, 3, 4, 24, 7


def layer(seed=0, positions=POSITIONS):
    """Features, labels and weights of a layer, and their statistics by the definitions."""
    rng = np.random.default_rng(seed)
    features = rng.gamma(2.0, 0.5, (SAMPLES, CHANNELS, positions)) * np.linspace(0.5, 2, CHANNELS)[:, None]
    labels = np.arange(SAMPLES) % CLASSES
    features[labels == 1, 2] += 1
    weights = rng.normal(size=(CHANNELS, WEIGHTS))

    def over(reduce, axes, *, rest):
        picked = [features[(labels != c) if rest else (labels == c)] for c in range(CLASSES)]
        return jnp.asarray(np.stack([reduce(rows, axis=axes) for rows in picked], axis=1), jnp.float32)

    counts = np.bincount(labels)
    statistics = Plain(
        mean_p=over(np.mean, (0, 2), rest=False),
        mean_q=over(np.mean, (0, 2), rest=True),
        var_p=over(np.var, (0, 2), rest=False),
        var_q=over(np.var, (0, 2), rest=True),
        count_p=jnp.asarray(counts, jnp.float32),
        count_q=jnp.asarray(SAMPLES - counts, jnp.float32),
        vector_p=over(np.mean, 0, rest=False),
        vector_q=over(np.mean, 0, rest=True),
        vector=jnp.asarray(features.mean(axis=0), jnp.float32),
    )
    return features, labels, weights, ex.terminals(statistics, jnp.asarray(weights, jnp.float32))


def direct(name, t):
    """The formulas written out in float64, with values [channels, classes, positions]."""
    g = {key: np.asarray(value, np.float64) for key, value in t.items()}
    gp, gq, vp, vq, sp, sq, n_p, n_q, mp, mq, mx = (g[key] for key in STATISTICS)
    both = vp + vq + 0.05
    ratios = vp / (vq + 0.05) + vq / (vp + 0.05)
    error = np.sqrt(vp / n_p + vq / n_q + 1e-4)
    std_x = mx.std(axis=2, keepdims=True)
    norms = ((mx - mp) ** 2 + (mx - mq) ** 2).sum(axis=2, keepdims=True)
    value = {
        "abs_snr": np.abs(gp - gq) / (np.sqrt(vp) + np.sqrt(vq) + 1e-4),
        "fdr": (gp - gq) ** 2 / (vp + vq + 1e-4),
        "sym_div": ratios + (gp - gq) ** 2 / both,
        "two_t": np.abs(gp - gq) / error,
        "l1": g["l1"],
        "l2": g["l2"],
        "medoid": g["medoid"],
        "f1": vp + (vq - mx) ** 2 / both,
        "f2": ratios + (std_x * vq * mx + vp - gq) ** 2 / both,
        "f3": (mx - vq) ** 2 / error,
        "f4": vp / (vq / n_q + 0.05) + np.abs(gp - gq) + 0.05 + mq,
        "inspired1": sp / (sq + 0.2) + sq / (sp + 0.2) + norms / (sp + sq + 0.2),
        "inspired2": (mx - mq) ** 2 / both,
    }[name]
    return np.broadcast_to(value, (*mp.shape,)).sum(axis=(1, 2))


@pytest.mark.parametrize("name", FORMULAS)
def test_known_formulas_are_what_they_say_on_every_path(name):
    *_, t = layer()
    wanted = direct(name, t)
    program = ex.known(name)
    population = ex.stacked([program], 32)
    np.testing.assert_allclose(ex.evaluate(population, t)[0], wanted, rtol=1e-5)
    np.testing.assert_allclose(ex.shared(population, t)[0], wanted, rtol=1e-5)
    np.testing.assert_allclose(ex.to_function(program)(t), wanted, rtol=1e-5)
    np.testing.assert_array_equal(ex.parse(ex.unparse(program)).tokens, program.tokens)


@pytest.mark.parametrize("name", FORMULAS)
def test_known_formulas_agree_with_raw_matrices(name):
    features, labels, weights, t = layer()
    raw = ex.oracle(ex.RAW[name], features, labels, weights)
    found = ex.shared(ex.stacked([ex.known(name)], 32), t)[0]
    # A raw score that is a number per class counts once; with statistics as terminals, once per position.
    times = 1 if name in ("f1", "f2", "f3", "f4", "inspired2") else POSITIONS
    np.testing.assert_allclose(found, times * raw, rtol=2e-5)


def test_the_medoid_is_the_weights_nearest_to_all():
    _, _, weights, t = layer()
    apart = np.linalg.norm(weights[:, None] - weights[None], axis=-1)
    np.testing.assert_allclose(t["medoid"][:, 0, 0], apart[apart.sum(axis=1).argmin()], rtol=1e-6)
    assert int((t["medoid"] == 0).sum()) == 1


def test_raw_operators_forgive_shapes():
    features, labels, weights, _ = layer()

    def value(raw):
        return ex.oracle(raw, features[:, :1], labels, weights[:1])

    rows = features[:, 0]
    np.testing.assert_allclose(value(("trace", 2.0)), [CLASSES * 2.0])
    np.testing.assert_allclose(value(("trace", "mX")), [CLASSES * rows.mean(axis=0)[0]])
    np.testing.assert_allclose(value(("pinv", 4.0)), [CLASSES / 4])
    np.testing.assert_allclose(value(("sub", "WI", "mX")), [CLASSES * (weights[0, :4] - rows.mean(axis=0)).sum()])
    gram = ("matmul", ("transpose", "X"), "X")
    np.testing.assert_allclose(
        value(("trace", ("matmul", ("pinv", gram), gram))), [CLASSES * POSITIONS], rtol=1e-3
    )  # the ridge is small beside the rows' squares
    np.testing.assert_allclose(value(("trace", ("outer", "mX", "mX"))), [CLASSES * (rows.mean(axis=0) ** 2).sum()])
    np.testing.assert_allclose(value(("rows", "X")), [CLASSES * SAMPLES])
    np.testing.assert_allclose(value(("sum", ("sub", ("rowmean", "X"), "mX"))), [0], atol=1e-12)
    with pytest.raises(ValueError, match="no operand 'Z'"):
        value("Z")
    with pytest.raises(ValueError, match="no operator 'zz'"):
        value(("zz", "X"))


@pytest.mark.parametrize(
    "formula, wanted",
    [
        ("gP + 1", [3 * 8, 2 * 8]),
        ("mX", [2 * (1 + 2 + 3 + 4), 2 * 4]),
        ("mean(mX)", [2 * 10, 2 * 4]),
        ("sum(mX)", [2 * 4 * 10, 2 * 4 * 4]),
        ("var(mX)", [8 * 1.25, 0]),
        ("std(mX)", [8 * np.sqrt(1.25), 0]),
        ("sum(gP)", [8 * 8, 8 * 4]),
        ("var(gP)", [0, 0]),
        ("gP / (gP - gP)", [8 * 1e6, 8 * 1e6]),
        ("gP / -1e-9", [8 * -1e6] * 2),
        ("square(gP * 1e5)", [8e6, 8e6]),
        ("sqrt(neg(gP + gP))", [16, 8 * np.sqrt(2)]),
        ("abs(0 - gP)", [16, 8]),
        ("eps(gP) - gP", [8e-4, 8e-4]),
        ("ridge(nP)", [4 * (2 + 0.05) + 4 * (3 + 0.05)] * 2),
    ],
)
def test_operators_by_hand(formula, wanted):
    """Two channels, two classes, four positions."""
    language = PAPER.only(["gP", "nP", "mX"])
    t = {
        "gP": jnp.array([[[2.0]], [[1.0]]]),
        "nP": jnp.array([[[2.0], [3.0]]]),
        "mX": jnp.array([[[1.0, 2.0, 3.0, 4.0]], [[1.0, 1.0, 1.0, 1.0]]]),
    }
    program = ex.parse(formula, language)
    population = ex.stacked([program], 8)
    for found in (
        ex.evaluate(population, t, language, chunk=1)[0],
        ex.evaluate(population, t, language, chunk=4)[0],
        ex.shared(population, t, language)[0],
        ex.to_function(program, language)(t),
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-6)


TAME = Language(
    tuple(o for o in ex.OPERATORS if o.name not in ("div", "var", "std", "sub")), PAPER.terminals, alike=PAPER.alike
)


@pytest.mark.parametrize("tile", [1, 40, 10**6])
def test_all_paths_agree_on_random_programs(tile):
    """Sums, products and roots of positive numbers lose no digits; differences and quotients are tested by hand."""
    *_, t = layer()
    t = {name: jnp.abs(array) / 8 for name, array in t.items()}
    programs = ex.random_programs(jax.random.key(0), 200, 24, TAME, least=0, most=4)
    wanted = ex.evaluate(programs, t, TAME)
    np.testing.assert_allclose(ex.shared(programs, t, TAME, tile=tile), wanted, rtol=2e-5, atol=1e-4)


def test_a_loop_chunks_and_a_batch_agree():
    *_, t = layer()
    programs = ex.random_programs(jax.random.key(1), 50, 24)
    loop, chunks, batch = (ex.evaluate(programs, t, chunk=chunk) for chunk in (1, 7, 50))
    np.testing.assert_allclose(loop, batch, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(chunks, batch, rtol=1e-4, atol=1e-4)


def test_evaluation_runs_inside_jit_with_programs_as_data():
    *_, t = layer()
    run = jax.jit(lambda programs: ex.evaluate(programs, t))
    for key in range(2):
        programs = ex.random_programs(jax.random.key(key), 10, 16)
        np.testing.assert_allclose(run(programs), ex.evaluate(programs, t), rtol=1e-4, atol=1e-4)


def test_double_precision_is_kept():
    with jax.enable_x64(True):
        language = PAPER.only(["gP"])
        t = {"gP": jnp.array([[[1.0 + 1e-12]]], jnp.float64)}
        found = ex.evaluate(ex.stacked([ex.parse("gP - 1", language)], 4), t, language)
        np.testing.assert_allclose(found, [[1e-12]], rtol=1e-3)


def test_what_is_not_a_number_ranks_last():
    wild = Operator("wild", 1, lambda x: x * x)  # not cut
    language = Language((*ex.OPERATORS, wild), ("a",))
    program = ex.parse("wild(a) - wild(a)", language)
    t = {"a": jnp.array([[[1e30]], [[1.0]]])}
    for found in (
        ex.evaluate(ex.stacked([program], 8), t, language)[0],
        ex.shared(ex.stacked([program], 8), t, language)[0],
        ex.to_function(program, language)(t),
    ):
        np.testing.assert_array_equal(found, [-np.inf, 0.0])


def test_an_operator_without_a_host_form_goes_through_jax():
    *_, t = layer()
    most = Operator("most", 1, lambda x: jnp.max(x, axis=-1, keepdims=True), reduces=True)
    language = Language((*ex.OPERATORS, Operator("larger", 2, jnp.maximum), most), PAPER.terminals)
    programs = ex.stacked([ex.parse("most(larger(mP, mQ)) + most(gP)", language)], 8)
    np.testing.assert_allclose(ex.shared(programs, t, language), ex.evaluate(programs, t, language), rtol=1e-5)


def test_the_plan_computes_every_distinct_subexpression_once_and_operands_first():
    formulas = ["square(gP - gQ) / (vP + vQ)", "abs(gP - gQ)", "(vQ + vP) * (gP - gQ)", "gQ - gP", "gP + 2", "gP + 0.5"]
    plan = ex.plan(ex.stacked([ex.parse(f) for f in formulas], 16))
    names = [PAPER.tokens[token] for token in plan.token]
    # gP gQ vP vQ 2 0.5; two differences, one sum of variances, and what is made of them.
    assert sorted(names) == sorted(
        ["gP", "gQ", "vP", "vQ", "#", "#", "sub", "sub", "add", "add", "add", "square", "div", "abs", "mul"]
    )
    assert all(max(left, right) < node for node, (left, right) in enumerate(zip(plan.left, plan.right, strict=True)))
    assert [names[root] for root in plan.roots] == ["div", "abs", "mul", "sub", "add", "add"]


def test_missing_wrong_and_infinite_terminals_are_refused():
    language = PAPER.only(["gP", "gQ"])
    program = ex.parse("gP - gQ", language)
    population = ex.stacked([program], 4)
    good = {"gP": jnp.ones((2, 3, 1)), "gQ": jnp.ones((2, 3, 4))}
    for bad, rule in (
        ({"gP": good["gP"]}, "'gQ' of the language is not given, only gP"),
        (good | {"gP": jnp.ones((3, 3, 1))}, "does not broadcast"),
        (good | {"gP": jnp.ones((2, 3))}, "channels, classes, positions"),
        (good | {"gP": jnp.full((2, 3, 1), jnp.nan)}, "gP has 6 values that are not finite"),
    ):
        for run in (ex.evaluate, ex.shared):
            with pytest.raises(ValueError, match=rule):
                run(population, bad, language)
        with pytest.raises(ValueError, match=rule):
            ex.to_function(program, language)(bad)
    malformed = Programs(population.tokens.at[0, 2].set(1 + len(PAPER.operators)), population.consts)
    for run in (ex.evaluate, ex.shared):
        with pytest.raises(ValueError, match="leaves 3 values"):
            run(malformed, good, language)
    with pytest.raises(ValueError, match=r"\(population, length\)"):
        ex.evaluate(program, good, language)
    with pytest.raises(ValueError, match="no formula 'zz'"):
        ex.known("zz")


def test_statistics_that_disagree_are_refused():
    ones = dict.fromkeys(["mean_p", "mean_q", "var_p", "var_q"], jnp.ones((4, 3)))
    ones |= dict.fromkeys(["count_p", "count_q"], jnp.ones(3)) | dict.fromkeys(
        ["vector_p", "vector_q"], jnp.ones((4, 3, 2))
    )
    ones["vector"] = jnp.ones((4, 2))
    assert list(ex.terminals(Plain(**ones))) == list(STATISTICS)
    with pytest.raises(ValueError, match=r"statistics.vector has the shape \(4, 3\)"):
        ex.terminals(Plain(**ones | {"vector": jnp.ones((4, 3))}))
    with pytest.raises(ValueError, match="weights has 3 rows for 4 channels"):
        ex.terminals(Plain(**ones), jnp.ones((3, 2)))
    with pytest.raises(ValueError, match="sP has 12 values"):
        ex.terminals(Plain(**ones | {"var_p": -jnp.ones((4, 3))}))


@pytest.mark.parametrize("formula", ["dot(a, b)", "dot(b, b)", "dot(b, m)", "dot(m, b) + m", "dot(m, m)"])
def test_an_operator_of_two_operands_may_reduce(formula):
    dot = Operator("dot", 2, lambda a, b: jnp.sum(a * b, axis=-1, keepdims=True), commutative=True, reduces=True)
    language = Language((*ex.OPERATORS, dot), ("a", "b", "m"))
    rng = np.random.default_rng(0)
    shapes = {"a": (3, 2, 1), "b": (1, 2, 1), "m": (3, 2, 4)}
    t = {name: jnp.asarray(rng.normal(size=shape), jnp.float32) for name, shape in shapes.items()}
    program = ex.parse(formula, language)
    one = ex.stacked([program], 8)
    expected = ex.evaluate(one, t, language)
    np.testing.assert_allclose(ex.shared(one, t, language), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ex.to_function(program, language)(t), expected[0], rtol=1e-5, atol=1e-5)
