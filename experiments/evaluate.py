"""Evaluates an artefact: nothing is needed but the file and the data.

    python -m experiments.evaluate --artifact=model.cjx --dataset=mnist [--split=test]

The file names its network and widths; the network is rebuilt from them, the parameters are decoded into it, and the
accuracy on the split is printed with the file's size and its ratio to the dense network in float32.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from absl import app, flags, logging

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Evaluation:
    """What an artefact is worth.

    Attributes:
      model: Name of the network in the zoo.
      dataset: Data set it was evaluated on.
      split: ``"train"``, ``"validation"`` or ``"test"``.
      images: Number of images.
      accuracy: Share of correct predictions.
      bytes: Size of the file.
      parameters: Parameters of the dense network, biases included.
      nonzeros: Parameters of the decoded network that are not zero, biases included.
    """

    model: str
    dataset: str
    split: str
    images: int
    accuracy: float
    bytes: int
    parameters: int
    nonzeros: int

    @property
    def ratio(self) -> float:
        """Bytes of the dense network in float32 over bytes of the file.

        >>> Evaluation("lenet5", "mnist", "test", 10_000, 0.99, 1_000, 431_080, 1_700).ratio
        1724.32
        """
        return 4 * self.parameters / self.bytes

    def __str__(self) -> str:
        return (
            f"{self.model} on {self.dataset}, {self.split} split: {100 * self.accuracy:.2f} % "
            f"of {self.images:,} images\n"
            f"{self.bytes:,} bytes, {self.ratio:,.1f} times smaller than the dense network "
            f"({self.parameters:,} parameters, {4 * self.parameters:,} bytes in float32); "
            f"{self.nonzeros:,} parameters are not zero"
        )


def evaluate(
    artifact: str | os.PathLike[str], dataset: str = "", split: str = "test", *, validation: int = 0, seed: int = 0
) -> Evaluation:
    """Reads an artefact and evaluates it.

    Args:
      artifact: A ``.cjx`` file whose meta data name a network of the zoo.
      dataset: Name of a data set; by default the one the file names.
      split: ``"train"``, ``"validation"`` or ``"test"``.
      validation: Images held out of the training split (0: the data set's default); matters for train and validation.
      seed: Decides which images are held out.

    Returns:
      The evaluation; pixels are uint8 / 255.

    Raises:
      ValueError: If the file is damaged or foreign, or does not fit the network it names or the data.
      OSError: If the file or the data cannot be read.
    """
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r}; choose one of {', '.join(SPLITS)}.")
    path = Path(artifact)
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")

    import numpy as np

    from compressjax import data, storage, trees, zoo
    from experiments.fitting import accuracy
    from experiments.runner import rebuild

    found = storage.load(path)
    dataset = dataset or str(found.meta.get("dataset", ""))
    if not dataset:
        raise ValueError(f"{path} does not name a data set; say --dataset=NAME, one of {', '.join(data.names())}.")
    loaded = data.load(dataset, validation=validation or None, seed=seed)
    part = loaded.test() if split == "test" else getattr(loaded, split)
    shape = part.images.shape[1:]
    try:
        meta = {**found.meta, "dataset": dataset}
        if isinstance(meta.get("model"), str) and not meta.get("widths"):
            meta["widths"] = zoo.widths_of(str(meta["model"]), found.params)
        model = rebuild(meta, classes=loaded.classes, input_shape=shape)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error
    dense = zoo.build(model.name, classes=loaded.classes, input_shape=shape)
    _fits(path, model, found.params)
    return Evaluation(
        model=model.name,
        dataset=dataset,
        split=split,
        images=len(part.labels),
        accuracy=accuracy(model, found.params, part),
        bytes=path.stat().st_size,
        parameters=sum(int(np.prod(shape)) for shape in _shapes(dense).values()),
        nonzeros=sum(int(np.count_nonzero(leaf)) for leaf in trees.leaves(found.params).values()),
    )


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of a network's leaves by path, without making them."""
    import jax

    from compressjax import trees

    return {
        path: tuple(leaf.shape) for path, leaf in trees.leaves(jax.eval_shape(model.init, jax.random.key(0))).items()
    }


def _fits(path: Path, model: Any, params: Any) -> None:
    """Refuses parameters that are not the model's."""
    from compressjax import trees

    expected = _shapes(model)
    found = {name: tuple(leaf.shape) for name, leaf in trees.leaves(params).items()}
    for name in dict.fromkeys([*expected, *found]):
        if expected.get(name) != found.get(name):
            raise ValueError(
                f"{path} does not fit {model.name} on this data set: leaf {name!r} has shape "
                f"{found.get(name, 'nothing')} where {expected.get(name, 'nothing')} is needed."
            )


def main(argv: list[str]) -> None:
    """Flag shell around `evaluate`."""
    from experiments.launch import cache_compilations, refuse_arguments

    refuse_arguments(argv)
    values = flags.FLAGS
    logging.set_verbosity(logging.WARNING)  # JAX reports each backend that is not there
    cache_compilations()
    try:
        print(
            evaluate(values.artifact, values.dataset, values.split, validation=values.validation, seed=values.seed),
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    flags.DEFINE_string("artifact", None, "The .cjx file.")
    flags.DEFINE_string("dataset", "", "Data set; by default the one the file names.")
    flags.DEFINE_enum("split", "test", SPLITS, "Which split to evaluate on.")
    flags.DEFINE_integer("validation", 0, "Images held out of the training split; 0: the data set's default.")
    flags.DEFINE_integer("seed", 0, "Decides which images are held out.")
    flags.mark_flag_as_required("artifact")
    app.run(main)
