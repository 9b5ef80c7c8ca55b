"""One-shot pruning without retraining: magnitude, Wanda, SparseGPT and ALPS side by side.

    --config=configs/resnet_oneshot.py            ResNet-20 with the pretrained weights, on CIFAR-10
    --config=configs/resnet_oneshot.py:files      the same network pruned and quantized jointly: bytes against accuracy
    --config=configs/resnet_oneshot.py:decoder    a decoder of two layers with random weights, on random tokens
    --config=configs/resnet_oneshot.py:tiny       LeNet-300-100 with random weights on the embedded digits

Calibration: 512 training images, or 64 sequences of 128 tokens.  The first and the last layer stay dense,
but in files, where they are quantized like all others.
"""

from experiments.oneshot_config import OneshotConfig


def get_config(profile: str = "full") -> OneshotConfig:
    """Profiles: full, files, decoder and tiny."""
    if profile == "full":
        return OneshotConfig(calibration=512, fixed=("conv0/kernel", "fc/kernel"))
    if profile == "files":
        return OneshotConfig(
            calibration=512,
            methods=("alps", "magnitude"),
            removed=(0.0, 0.5, 0.7),
            n_of_m=(),
            bits=(6, 5, 4),
            validation=1000,
        )
    if profile == "decoder":
        return OneshotConfig(
            model="decoder",
            options={"layers": 2, "classes": 1000},
            dataset="",
            load="random",
            calibration=64,
            batch_size=16,
            evaluation=32,
            fixed=("fc/kernel",),
        )
    if profile == "tiny":
        return OneshotConfig(
            model="lenet300",
            options={"widths": (16, 8)},
            dataset="digits",
            load="random",
            calibration=64,
            batch_size=32,
            removed=(0.5,),
            fixed=("fc3/kernel",),
            validation=100,
        )
    raise ValueError(f"Unknown profile {profile!r}; choose full, files, decoder or tiny.")
