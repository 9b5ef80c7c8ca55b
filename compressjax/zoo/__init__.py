"""Networks as Flax Linen modules over plain nested dictionaries; widths are arguments."""

from compressjax.zoo._lenet import LeNet5, LeNet300
from compressjax.zoo._model import Model, build, names, widths_of

__all__ = ["LeNet5", "LeNet300", "Model", "build", "names", "widths_of"]
