"""What `make wheel` runs beside an installed wheel, in a folder without the sources: imports, files, examples.

Needs nothing but the wheel and what it requires: no extra, no pytest.
"""

import doctest
import importlib
import importlib.metadata
import importlib.resources
import sys
import sysconfig
from pathlib import Path

ROOMS_WITH_EXAMPLES = ("trees", "masks", "projections", "quantizers", "storage", "training")
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def main() -> None:
    import compressjax

    installed = Path(sysconfig.get_paths()["purelib"]).resolve()
    assert Path(compressjax.__file__).resolve().is_relative_to(installed), f"imported from {compressjax.__file__}"
    assert importlib.metadata.version("compressjax") == compressjax.__version__
    assert importlib.resources.files("compressjax").joinpath("py.typed").is_file()
    assert not {"experiments", "configs", "tests"} & {path.name for path in installed.iterdir()}
    for room in compressjax.__all__:
        importlib.import_module(f"compressjax.{room}")
    importlib.import_module("pallas_kernels")

    failed, tried = doctest.testfile("getting_started.md", module_relative=False, optionflags=OPTIONS)
    for room in ROOMS_WITH_EXAMPLES:
        inside = [name for name in sys.modules if (name + ".").startswith(f"compressjax.{room}.")]
        for name in sorted(inside):
            result = doctest.testmod(sys.modules[name], optionflags=OPTIONS)
            failed, tried = failed + result.failed, tried + result.attempted
    print(f"compressjax {compressjax.__version__} from the wheel: {tried} examples, {failed} failed")
    if failed or not tried:
        sys.exit(1)


if __name__ == "__main__":
    main()
