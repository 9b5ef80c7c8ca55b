"""Programs over the library: thin absl-flag shells around importable ``run(config, workdir)`` functions.

They run from a checkout, ``python -m experiments.NAME --config=configs/FILE.py --workdir=DIR``, and are not part of the
wheel.
"""
