"""The configuration of a pruning task, for `experiments.cdc`, `evolve` and `evolve_amounts`; it imports no JAX."""

from dataclasses import dataclass, field

from experiments.schema import Base, Fit, check_base, check_fit, check_widths, least


@dataclass
class Task(Base):
    """A network to prune.  `load` "pretrained" takes the weights that come with the data; "" trains for `pretrain`."""

    name: str = ""
    widths: tuple[int, ...] = ()  # of the dense network; (): the published ones
    kept: dict[str, int] = field(default_factory=dict)  # glob of a producing kernel -> channels left
    fixed: tuple[str, ...] = ()  # globs of leaves none of whose channels may go
    retrain: Fit = field(default_factory=Fit)  # after the cut
    score_images: int = 2000  # training images that scores see, in whole batches of 250 or of as many as there are
    reestimate_images: int = 2048  # training images for the statistics of batch normalization after the cut
    test_images: int = 0  # first so many images of the test split; 0: all


def check(at: str, task: Task) -> None:
    """Verifies types and ranges of one task.

    Raises:
      ValueError: Naming the first field that is wrong.
    """
    check_base(task)
    check_fit(f"{at}.retrain", task.retrain)
    check_widths(f"{at}.widths", task.widths)
    for rule, width in task.kept.items():
        least(f"{at}.kept[{rule!r}]", width, 1)
    for name in ("score_images", "reestimate_images"):
        least(f"{at}.{name}", getattr(task, name), 1)
    least(f"{at}.test_images", task.test_images, 0)
    if not task.name:
        raise ValueError(f"{at}.name is empty; results are filed under it.")
