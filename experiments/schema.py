"""The configuration of a compression run: plain dataclasses, one field per decision.

They are mutable only so that command-line overrides (``--config.pretrain.epochs=2``) can be applied; no code changes a
configuration after `check` has accepted it.  Epochs are counted on the training split and may be fractional.
"""

import dataclasses
import math
import types
import typing
from dataclasses import dataclass, field
from typing import Any

SOLVERS = ("admm", "gradual_magnitude")
QUANTIZERS = ("levels", "codebook")
LOOPS = ("step", "scan")
OPTIMIZERS = ("adam", "sgd")
LARGEST_INT = 1 << 31  # what counts images, steps and channels, or seeds a generator, is below it
LARGEST_FLOAT = 1e30
LONGEST_TEXT = 1000
MOST_EPOCHS = 1_000_000
WIDEST = 1 << 14  # channels of a layer
LARGEST_BATCH = 1 << 16  # images where a batch of them is made up


@dataclass
class Fit:
    """Training on the task loss with a cosine learning rate."""

    epochs: float = 1.0
    learning_rate: float = 1e-3
    final_learning_rate: float = 1e-5
    shift: int = 0  # augmentation: translate each image by up to this many pixels in x and y
    flip: bool = False  # augmentation: mirror each image left to right with probability 1/2
    optimizer: str = "adam"  # or "sgd": Nesterov momentum 0.9
    weight_decay: float = 0.0  # of kernels, added to the gradient


@dataclass
class Admm(Fit):
    """Training towards a constraint; the gradual-magnitude control uses the same epochs and learning rates."""

    every: int = 32  # optimizer steps between refreshes of Z and U (0: the published coarse schedule)
    rho: float = 0.05  # final penalty
    initial_rho: float = 1e-3
    iterations: int = 20  # coarse schedule only: number of refreshes
    rescale_dual: bool = True


@dataclass
class Stage:
    """One rung of the ladder: optional structured cut, pruning to `keep`, masked retraining."""

    keep: dict[str, int]  # rule -> non-zero weights
    prune: Admm = field(default_factory=Admm)
    retrain: Fit = field(default_factory=Fit)
    published: str = ""  # the figure this stage answers, e.g. "99.2 % (arXiv 1804.03294)"


@dataclass
class Quantize:
    """Quantization of one stage's survivors: equalized units, ADMM, gradual freezing, tuning of the level values."""

    stage: int  # index into `Config.stages`
    bits: dict[str, int]  # rule -> bits per non-zero weight
    quantizer: str = "codebook"
    equalize: bool = True  # rescale hidden units first so that the levels fit better (the function stays)
    bias_bits: int = 6
    lean: bool = False  # biases of at most 4 steps, zeros among them, and scales of four significant bits
    admm: Admm = field(default_factory=Admm)
    freeze: Fit = field(default_factory=Fit)
    tune: Fit = field(default_factory=Fit)
    published: str = ""


@dataclass
class Distill:
    """Knowledge distillation from the dense network (Hinton et al., arXiv 1503.02531)."""

    weight: float = 0.0  # share of the loss; 0 turns it off
    temperature: float = 2.0


@dataclass
class Base:
    """What every training program needs to know."""

    dataset: str = "digits"
    model: str = "lenet5"
    seed: int = 0
    validation: int = 0  # images held out of the training split; 0: the data set's default
    batch_size: int = 128
    load: str = ""  # a dense .cjx to start from instead of pretraining (its training is then not repeated)
    pretrain: Fit = field(default_factory=Fit)
    distill: Distill = field(default_factory=Distill)
    loop: str = "step"  # "step": one jitted step from Python (fast on CPU); "scan": one scanned chunk (accelerators)
    log_every: int = 1  # epochs between metric records
    checkpoint_every: int = 2  # epochs between checkpoints


@dataclass
class Config(Base):
    """One compression run, from pretraining to files."""

    widths: tuple[int, ...] = ()  # structured cut after pretraining: units kept per hidden layer; (): no cut
    recover: Fit = field(default_factory=Fit)  # training after the cut
    solver: str = "admm"
    control: bool = False  # also climb the ladder by gradual magnitude pruning, at equal epochs, for the report
    stages: tuple[Stage, ...] = ()
    quantize: tuple[Quantize, ...] = ()


def to_dict(config: Any) -> dict[str, Any]:
    """The configuration as JSON-ready nested dicts and lists.

    >>> to_dict(Fit(epochs=2))["epochs"]
    2
    """
    return typing.cast("dict[str, Any]", _jsonable(dataclasses.asdict(config)))


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _jsonable(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(v) for v in value]
    return value


def check(config: Config) -> None:
    """Verifies types and ranges.

    Raises:
      ValueError: Naming the first field that is wrong, what it holds and what it may hold.

    >>> check(Config(solver="magic"))
    Traceback (most recent call last):
    ...
    ValueError: config.solver is 'magic'; choose one of admm, gradual_magnitude.
    """
    check_kind(config, Config, "experiments.compress")
    check_base(config)
    choice("config.solver", config.solver, SOLVERS)
    if config.control and config.solver == "gradual_magnitude":
        raise ValueError(
            "config.control adds gradual magnitude pruning beside another solver; config.solver is that one."
        )
    check_fit("config.recover", config.recover)
    for i, stage in enumerate(config.stages):
        at = f"config.stages[{i}]"
        check_admm(f"{at}.prune", stage.prune)
        check_fit(f"{at}.retrain", stage.retrain)
        if not stage.keep:
            raise ValueError(f"{at}.keep is empty; name at least one rule and its count.")
        for rule, count in stage.keep.items():
            least(f"{at}.keep[{rule!r}]", count, 1)
    for i, quantize in enumerate(config.quantize):
        at = f"config.quantize[{i}]"
        choice(f"{at}.quantizer", quantize.quantizer, QUANTIZERS)
        if not 0 <= quantize.stage < len(config.stages):
            raise ValueError(
                f"{at}.stage is {quantize.stage}; the run has {len(config.stages)} stages, counted from 0."
            )
        if not quantize.bits:
            raise ValueError(f"{at}.bits is empty; name at least one rule and its bits.")
        same = (quantize.stage, quantize.quantizer, tuple(quantize.bits.values()))
        if same in [(q.stage, q.quantizer, tuple(q.bits.values())) for q in config.quantize[:i]]:
            raise ValueError(f"{at} quantizes the same stage to the same bits as an earlier entry; remove one of them.")
        for rule, bits in quantize.bits.items():
            if not 1 <= bits <= 8:
                raise ValueError(f"{at}.bits[{rule!r}] is {bits}; use 1 to 8.")
        if not 2 <= quantize.bias_bits <= 8:
            raise ValueError(f"{at}.bias_bits is {quantize.bias_bits}; use 2 to 8.")
        check_admm(f"{at}.admm", quantize.admm)
        check_fit(f"{at}.freeze", quantize.freeze)
        check_fit(f"{at}.tune", quantize.tune)


def check_kind(config: Any, kind: type, program: str) -> None:
    """Refuses the configuration of another program."""
    if not isinstance(config, kind):
        getattr(config, "dataset", None)  # what stands for a file that could not be read says why
        raise ValueError(f"The configuration is a {type(config).__name__}; {program} takes a {kind.__name__}.")


def check_base(config: Base) -> None:
    """The part of `check` that all training programs share."""
    check_types(config, "config")
    choice("config.loop", config.loop, LOOPS)
    for name in ("batch_size", "log_every", "checkpoint_every"):
        least(f"config.{name}", getattr(config, name), 1)
    for name in ("seed", "validation"):
        least(f"config.{name}", getattr(config, name), 0)
    if not 0.0 <= config.distill.weight <= 1.0:
        raise ValueError(f"config.distill.weight is {config.distill.weight}; it is a share between 0 and 1.")
    positive("config.distill.temperature", config.distill.temperature)
    check_fit("config.pretrain", config.pretrain)


def check_fit(at: str, fit: Fit) -> None:
    """Ranges of one phase of training; `at` is its name in the configuration."""
    positive(f"{at}.learning_rate", fit.learning_rate)
    least(f"{at}.epochs", fit.epochs, 0)
    most(f"{at}.epochs", fit.epochs, MOST_EPOCHS)
    least(f"{at}.final_learning_rate", fit.final_learning_rate, 0)
    least(f"{at}.weight_decay", fit.weight_decay, 0)
    choice(f"{at}.optimizer", fit.optimizer, OPTIMIZERS)
    if not 0 <= fit.shift <= 4:
        raise ValueError(f"{at}.shift is {fit.shift}; use 0 to 4 pixels.")


def check_admm(at: str, admm: Admm) -> None:
    """Ranges of a phase of training towards a constraint."""
    check_fit(at, admm)
    positive(f"{at}.epochs", admm.epochs)
    positive(f"{at}.rho", admm.rho)
    positive(f"{at}.initial_rho", admm.initial_rho)
    least(f"{at}.every", admm.every, 0)
    least(f"{at}.iterations", admm.iterations, 1)


def choice(at: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"{at} is {value!r}; choose one of {', '.join(allowed)}.")


def positive(at: str, value: float) -> None:
    if not (value > 0 and math.isfinite(value)):
        raise ValueError(f"{at} is {value}; it must be positive and finite.")


def least(at: str, value: float, least: int) -> None:
    if not (value >= least and math.isfinite(value)):
        raise ValueError(f"{at} is {value}; it must be a finite number of at least {least}.")


def most(at: str, value: float, most: int) -> None:
    if value > most:
        raise ValueError(f"{at} is {value}; it must be at most {most:,}.")


def check_widths(at: str, widths: typing.Sequence[int]) -> None:
    """Ranges of the widths of a dense network; () stands for the published ones."""
    for i, width in enumerate(widths):
        least(f"{at}[{i}]", width, 1)
        most(f"{at}[{i}]", width, WIDEST)


def check_types(value: Any, at: str) -> None:
    """Recursively compares a dataclass's values with its annotations."""
    known = typing.get_type_hints(type(value))
    for name in vars(value):
        if name not in known:
            raise ValueError(f"{at}.{name} is unknown; {at} has the fields {', '.join(known)}.")
    for name, hint in known.items():
        if not hasattr(value, name):
            raise ValueError(f"{at}.{name} is missing; it must be of type {_name(hint)}.")
        _check_type(getattr(value, name), hint, f"{at}.{name}")


def _check_type(value: Any, hint: Any, at: str) -> None:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, typing.cast("type", hint)):
            raise ValueError(f"{at} is a {type(value).__name__}; it must be a {_name(hint)}.")
        check_types(value, at)
    elif origin is tuple:
        if not isinstance(value, (tuple, list)):
            raise ValueError(f"{at} is a {type(value).__name__}; it must be a tuple.")
        for i, item in enumerate(value):
            _check_type(item, typing.get_args(hint)[0], f"{at}[{i}]")
    elif origin is dict:
        if not isinstance(value, dict):
            raise ValueError(f"{at} is a {type(value).__name__}; it must be a dict.")
        for key, item in value.items():
            _check_type(key, typing.get_args(hint)[0], f"the key {key!r:.40} of {at}")
            _check_type(item, typing.get_args(hint)[1], f"{at}[{key!r:.40}]")
    elif origin is types.UnionType:
        for option in typing.get_args(hint):
            if option is type(value):
                return check_types(value, at) if dataclasses.is_dataclass(option) else None
        raise ValueError(f"{at} is a {type(value).__name__}; it must be {hint}.")
    elif hint is Any:
        _check_plain(value, at)
    elif hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{at} is {value!r:.40}; it must be a number.")
        if abs(value) > LARGEST_FLOAT or value != value:
            raise ValueError(f"{at} is {_brief(value)}; it must be a finite number.")
    elif isinstance(value, bool) != (hint is bool) or not isinstance(value, hint):
        raise ValueError(f"{at} is {value!r:.40}; it must be of type {_name(hint)}.")
    elif hint is int and abs(value) >= LARGEST_INT:
        raise ValueError(f"{at} is {_brief(value)}; integers must be below {LARGEST_INT:,} in size.")
    elif hint is str and len(value) > LONGEST_TEXT:
        raise ValueError(f"{at} is a text of {len(value):,} characters; at most {LONGEST_TEXT:,} are allowed.")


def _check_plain(value: Any, at: str) -> None:
    """What may be anything must still come back from ``config.json``."""
    if isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            _check_plain(item, f"{at}[{i}]")
    elif isinstance(value, dict):
        _check_type(value, dict[str, Any], at)
    elif value is not None:
        hint = type(value)
        if hint not in (bool, int, float, str):
            raise ValueError(f"{at} is a {hint.__name__}; use a number, a text, or lists and dicts of them.")
        _check_type(value, hint, at)


def _brief(value: float) -> str:
    """A number of any size in a few characters."""
    return f"an integer of {value.bit_length()} bits" if isinstance(value, int) and abs(value) > 1e15 else f"{value}"


def _name(hint: Any) -> str:
    return getattr(hint, "__name__", str(hint))
