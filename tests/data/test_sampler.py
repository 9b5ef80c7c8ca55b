import numpy as np
import pytest

from compressjax.data import Sampler


def test_an_epoch_has_no_row_twice_and_the_left_over_rows_change():
    sampler = Sampler(size=23, batch_size=5, seed=1)
    assert sampler.steps_per_epoch == 4
    left_over = set()
    for epoch in range(20):
        seen = np.concatenate([sampler.indices(4 * epoch + i) for i in range(4)])
        assert len(set(seen.tolist())) == 20
        assert seen.dtype == np.int32
        assert seen.min() >= 0
        assert seen.max() < 23
        left_over |= set(range(23)) - set(seen.tolist())
    assert len(left_over) > 15


def test_a_batch_depends_on_seed_and_step_only():
    steps = [0, 17, 3, 17, 400]
    first = [Sampler(100, 7, seed=5).indices(s) for s in steps]
    second = {s: Sampler(100, 7, seed=5).indices(s) for s in reversed(steps)}
    for step, batch in zip(steps, first, strict=True):
        np.testing.assert_array_equal(batch, second[step])
    assert (Sampler(100, 7, seed=5).indices(0) != Sampler(100, 7, seed=6).indices(0)).any()


def test_epochs_and_seeds_are_different_streams():
    orders = [Sampler(50, 50, seed).indices(epoch).tobytes() for seed in range(4) for epoch in range(4)]
    assert len(set(orders)) == 16


def test_processes_share_the_batch_of_one_process():
    whole = Sampler(40, 12, seed=2)
    parts = [Sampler(40, 12, seed=2, process_index=i, process_count=3) for i in range(3)]
    for step in (0, 2, 3, 11):
        joined = np.concatenate([part.indices(step) for part in parts])
        np.testing.assert_array_equal(joined, whole.indices(step))


def test_batches_cannot_be_changed_by_the_caller():
    with pytest.raises(ValueError, match="read-only"):
        Sampler(8, 4).indices(0)[0] = 3


@pytest.mark.parametrize(
    "kwargs, match",
    [
        ({"size": 3, "batch_size": 4}, "batch_size=4"),
        ({"size": 3, "batch_size": 0}, "batch_size=0"),
        ({"size": 3, "batch_size": 1, "seed": -1}, "seed=-1"),
        ({"size": 9, "batch_size": 4, "process_count": 3}, "multiple of process_count=3"),
        ({"size": 9, "batch_size": 4, "process_count": 0}, "process_count=0"),
        ({"size": 9, "batch_size": 4, "process_count": 2, "process_index": 2}, "process_index=2"),
    ],
)
def test_bad_arguments(kwargs, match):
    with pytest.raises(ValueError, match=match):
        Sampler(**kwargs)


def test_negative_step():
    with pytest.raises(ValueError, match="step=-1"):
        Sampler(4, 2).indices(-1)
