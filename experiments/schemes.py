"""The configuration of a run of `experiments.low_precision`, and a network of the zoo with quantizers inside."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from compressjax import interop, quantizers, training, trees
from compressjax.quantizers import Codes
from compressjax.zoo import Model
from experiments.schema import Base, Fit, check_base, check_fit, check_kind, choice, least

WEIGHTS = {
    "lsq": lambda bits: quantizers.LearnedStep(bits),
    "lsq_channel": lambda bits: quantizers.LearnedStep(bits, axis=-1),
    "dorefa": lambda bits: quantizers.DoReFaWeights(bits),
    "levels": lambda bits: quantizers.Levels(bits),  # straight-through
    "power_of_two": lambda bits: quantizers.PowerOfTwo(bits),  # straight-through
    "codebook": lambda bits: quantizers.LearnedCodebook(bits),
}
ACTIVATIONS = {
    "lsq": lambda bits: quantizers.LearnedStep(bits, signed=False, batched=True),
    "pact": lambda bits: quantizers.LearnedClip(bits),
    "dorefa": lambda bits: quantizers.DoReFaActivations(bits),
}
PIXELS = quantizers.DoReFaActivations(8)  # images are multiples of 1/255 already
LEVELS = "levels"  # where a network's parameters hold what its quantizers train


@dataclass
class Scheme:
    """How weights and hidden activations are quantized."""

    weights: str = "lsq"
    activations: str = "lsq"
    weight_bits: int = 2
    activation_bits: int = 2


@dataclass
class LowPrecisionConfig(Base):
    """A float network, trained on in float for the control, and with every scheme for as long."""

    schemes: tuple[Scheme, ...] = ()
    train: Fit = field(default_factory=Fit)  # after pretraining, with quantizers and for the control
    calibration_images: int = 512  # training images from which the ranges of activations start


def scheme_name(scheme: Scheme) -> str:
    """Name of a scheme and of its artefact, without suffix.

    >>> scheme_name(Scheme("dorefa", "pact", 2, 4))
    'dorefa2-pact4'
    """
    return f"{scheme.weights}{scheme.weight_bits}-{scheme.activations}{scheme.activation_bits}"


def check(config: LowPrecisionConfig) -> None:
    """Verifies types and ranges.

    Raises:
      ValueError: Naming the first field that is wrong, what it holds and what it may hold.

    >>> check(LowPrecisionConfig(schemes=(Scheme(weights="ternary"),)))
    Traceback (most recent call last):
    ...
    ValueError: config.schemes[0].weights is 'ternary'; choose one of lsq, lsq_channel, dorefa, levels, ...
    """
    check_kind(config, LowPrecisionConfig, "experiments.low_precision")
    check_base(config)
    check_fit("config.train", config.train)
    least("config.calibration_images", config.calibration_images, 1)
    names = [scheme_name(scheme) for scheme in config.schemes]
    if not names:
        raise ValueError("config.schemes is empty; name at least one.")
    for i, scheme in enumerate(config.schemes):
        at = f"config.schemes[{i}]"
        choice(f"{at}.weights", scheme.weights, tuple(WEIGHTS))
        choice(f"{at}.activations", scheme.activations, tuple(ACTIVATIONS))
        try:
            QuantizedModel.of(scheme)
        except ValueError as error:
            raise ValueError(f"{at}: {error}") from error
        if names[i] in names[:i]:
            raise ValueError(f"{at} is the same as an earlier scheme ({names[i]}); remove one of them.")


@dataclass(frozen=True)
class Quantizers:
    """The quantizers of a scheme; None for weights that are levels already."""

    weights: Any
    activations: Any


@dataclass(frozen=True)
class QuantizedModel:
    """A network of the zoo that sees quantized weights and layer inputs; its parameters hold the quantizers' levels.

    Attributes:
      model: The network, a chain of layers.
      scheme: The quantizers of all of its layers.
    """

    model: Model
    scheme: Quantizers

    @staticmethod
    def of(scheme: Scheme) -> Quantizers:
        """The quantizers that a scheme names."""
        return Quantizers(
            WEIGHTS[scheme.weights](scheme.weight_bits), ACTIVATIONS[scheme.activations](scheme.activation_bits)
        )

    def apply(self, params: Mapping[str, Any], x: Any) -> Any:
        """Logits of a batch, as `Model.apply`."""
        levels = params.get(LEVELS, {})
        with interop.layer_inputs(lambda path, h: self.quantized_input(path, h, levels)):
            return self.model.apply(self.quantized_weights(params), x)

    def apply_train(self, params: Mapping[str, Any], x: Any) -> tuple[Any, dict[str, Any]]:
        """As `Model.apply_train`; chains have no statistics."""
        return self.apply(params, x), {}

    def quantized_input(self, path: str, x: Any, levels: Mapping[str, Any]) -> Any:
        """What the layer at `path` gets."""
        if path == self.model.chain[0]:
            return PIXELS(x)
        return self.scheme.activations(x, levels.get(path, {}).get("inputs"))

    def quantized_weights(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The network's own parameters, with kernels at their levels."""
        own = {name: leaf for name, leaf in params.items() if name != LEVELS}
        if self.scheme.weights is None:
            return own
        levels = {
            f"{layer}/kernel": known["weights"] for layer, known in params.get(LEVELS, {}).items() if "weights" in known
        }
        return training.quantized(training.WithLevels(own, levels), {"*/kernel": self.scheme.weights})

    def start(self, params: Mapping[str, Any], images: Any) -> dict[str, Any]:
        """A float network with the levels that its weights and its activations on `images` call for."""
        levels: dict[str, dict[str, Any]] = {layer: {} for layer in self.model.chain}
        for path, known in training.with_levels(params, {"*/kernel": self.scheme.weights}).levels.items():
            levels[path.removesuffix("/kernel")]["weights"] = known
        batches = [images[i : i + 128] for i in range(0, len(images), 128)]
        seen = quantizers.calibrate(lambda x: interop.inputs_of(self.model.apply, params, x), batches)
        for layer in self.model.chain[1:]:
            first = self._first(seen[layer])
            if first is not None:
                levels[layer]["inputs"] = first
        found = {layer: known for layer, known in levels.items() if known}
        return {**params, **({LEVELS: found} if found else {})}

    def _first(self, seen: quantizers.Seen) -> Any:
        """What an activation quantizer starts from; None if it trains nothing."""
        activations = self.scheme.activations
        if isinstance(activations, quantizers.LearnedStep):
            return quantizers.least_error(seen, activations.codes)
        if isinstance(activations, quantizers.LearnedClip):
            return quantizers.percentile(seen, activations.codes) * activations.codes.high
        return None

    def finish(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Parameters with the kernels at their levels, for a file."""
        return {**params, **jax.jit(self.quantized_weights)(params)}

    def integer(self, params: Mapping[str, Any], x: Any) -> Any:
        """Logits with every layer on integers; only for weights on learned steps.

        Biases are rounded to multiples of the product of two steps, so that logits can differ from `apply` by that.
        """
        levels = params[LEVELS]
        layers = {}
        for layer in self.model.chain:
            weights = self.scheme.weights.integers(params[layer]["kernel"], levels[layer]["weights"])
            inputs = self._codes(layer, levels)
            step = inputs(jnp.zeros((1,))).step
            bias = quantizers.round_bias(params[layer]["bias"], step, weights.step)
            layers[layer] = interop.IntegerLayer(weights, bias, inputs)
        own = {name: leaf for name, leaf in params.items() if name != LEVELS}
        with interop.integer_layers(layers):
            return self.model.apply(own, x)

    def _codes(self, layer: str, levels: Mapping[str, Any]) -> Any:
        if layer == self.model.chain[0]:
            return lambda x: PIXELS.integers(x)
        return lambda x: self.scheme.activations.integers(x, levels.get(layer, {}).get("inputs"))


def largest_sum(model: QuantizedModel, params: Mapping[str, Any]) -> float:
    """The largest bound on a partial sum over all layers; up to 2^24 float32 sums of codes are exact."""
    levels = params[LEVELS]
    bounds = [
        quantizers.largest_sum(
            model.scheme.weights.integers(params[layer]["kernel"], levels[layer]["weights"]),
            Codes(8, signed=False) if i == 0 else model.scheme.activations.codes,
        )
        for i, layer in enumerate(model.model.chain)
    ]
    return float(max(bounds))


def kernel_values(params: Any) -> int:
    """The largest number of distinct values in a kernel of a file."""
    return max(len(jnp.unique(leaf)) for path, leaf in trees.leaves(params).items() if path.endswith("/kernel"))
