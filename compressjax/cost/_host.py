"""The machine at hand as a platform: every distinct layer is compiled and timed by itself.

A layer's latency is the median (or minimum) of repeated calls, less that of a call that does nothing.  The sum over
layers leaves out what lies between contractions (normalizations, activations, copies) and what the compiler fuses;
`measure` times a whole network.  Timings go to a file if a folder is given: measuring twice on the same machine costs
nothing.
"""

import hashlib
import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from compressjax.cost._kernels import Spec, kernel, specs
from compressjax.cost._layers import Layers, PerLayer
from compressjax.cost._measure import take_turns


@dataclass(frozen=True)
class Host:
    """The default JAX device, measured.

    Attributes:
      repeats: Rounds of timed calls.
      warmup: Calls before them.
      fastest: Report the fastest round instead of the median: steadier on a machine that others use.
      cache: Folder that keeps timings; None measures anew each time.

    >>> import jax.numpy as jnp
    >>> from compressjax import cost
    >>> net = cost.layers(lambda w, x: x @ w, jnp.ones((64, 64)), jnp.ones((64, 64)))
    >>> host = Host(repeats=3)
    >>> host.latency(net).shape, host.modelled
    ((1,), False)
    """

    repeats: int = 20
    warmup: int = 2
    fastest: bool = False
    cache: str | os.PathLike[str] | None = None

    @property
    def modelled(self) -> bool:
        """False: these are measurements."""
        return False

    @property
    def source(self) -> str:
        """The machine and the JAX version."""
        device = jax.devices()[0]
        cores = f", {os.cpu_count()} cores" if device.platform == "cpu" else ""
        return f"measured: {device.device_kind} {platform.machine()}{_processor()}{cores}, jax {jax.__version__}"

    def latency(self, layers: Layers) -> PerLayer:
        """Seconds per layer, measured; the same layer is measured once.

        Args:
          layers: Concrete layers; precision is rounded up to 8 (integers), 16 or 32 bits (floats).

        Returns:
          Seconds, (layers,); NumPy float64.

        Raises:
          ValueError: If the layers are traced, sizes are no whole numbers, or there is no kernel for a layer.
        """
        wanted = specs(layers)
        names = dict(zip(wanted, layers.names, strict=True))
        known = self._read()
        missing = [spec for spec in names if _key(spec) not in known]
        if missing:
            idle = jax.jit(lambda x: x)
            nothing = jax.numpy.zeros(())
            calls = [kernel(spec, names[spec]) for spec in missing]
            base, *timings = take_turns([lambda: idle(nothing), *calls], repeats=self.repeats, warmup=self.warmup)
            for spec, timing in zip(missing, timings, strict=True):
                seconds = timing.minimum - base.minimum if self.fastest else timing.median - base.median
                known[_key(spec)] = max(seconds, 0.0)
            self._write(known)
        return np.asarray(layers.repeats, np.float64) * np.array([known[_key(spec)] for spec in wanted])

    def _file(self) -> Path | None:
        if self.cache is None:
            return None
        digest = hashlib.sha256(f"{self.source} {self.repeats} {self.fastest}".encode()).hexdigest()[:16]
        return Path(self.cache) / f"host-{digest}.json"

    def _read(self) -> dict[str, float]:
        file = self._file()
        if file is None or not file.is_file():
            return {}
        try:
            content = json.loads(file.read_text("utf-8"))
            return {str(key): float(value) for key, value in content["seconds"].items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{file} holds no timings ({error}): delete it, and they are measured again.") from error

    def _write(self, known: dict[str, float]) -> None:
        file = self._file()
        if file is None:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        # Another process may have written since; its timings are as good as ours.
        content: dict[str, Any] = {"source": self.source, "seconds": {**self._read(), **known}}
        temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
        temporary.write_text(json.dumps(content, indent=1), "utf-8")
        os.replace(temporary, file)


def _key(spec: Spec) -> str:
    return json.dumps(spec)


def _processor() -> str:
    """The processor's model, which `platform` does not tell on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return f" {platform.processor()}".rstrip()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f" {models[0]}" if models else ""
