"""Names the packages to install, and what to compile where that is asked for; everything else is in pyproject.toml.

schema/ is a folder of its own in the source, for the people who read SQL, and is installed as
`dhcp_cmd.schema`, so that a wheel can upgrade a database.

With DISTRIBUTED_MOBILITY_COMPILE=1 in the environment the modules that pyproject.toml lists are
compiled with mypyc, which needs a C compiler and Python's headers. What is asked for and fails,
fails the build. DISTRIBUTED_MOBILITY_OPTIMISE (0 to 3) is the C compiler's -O: a build at 0 takes
half of the time.
"""

import os
import re
import sys
import tomllib
from pathlib import Path

from setuptools import Extension, find_packages, setup

HERE = Path(__file__).parent
COMPILE = os.environ.get("DISTRIBUTED_MOBILITY_COMPILE", "0") not in ("", "0")


def compiler() -> list[str]:
    """What pip is to put into the build's environment: the very version that the tests run with."""
    if not COMPILE:
        return []
    pins = (HERE / "packaging" / "constraints.txt").read_text()
    return re.findall(r"^mypy==.*$", pins, re.MULTILINE)


def extensions() -> list[Extension]:
    """The compiled modules, all in one shared library, so that they call each other directly."""
    # The first two commands are pip asking for requirements (the compiler is not there yet) and metadata.
    if not COMPILE or {"egg_info", "dist_info"} & set(sys.argv):
        return []
    if "editable_wheel" in sys.argv:
        sys.exit("DISTRIBUTED_MOBILITY_COMPILE: an editable install would not see what is edited")
    from mypyc.build import mypycify

    project = tomllib.loads((HERE / "pyproject.toml").read_text())
    found = {
        str(path.relative_to(HERE))
        for pattern in project["tool"]["distributed-mobility"]["compiled"]
        for path in HERE.glob(pattern)
    }
    # Whatever else is installed, the result is the same: no configuration, no other package's types.
    options = ["--config-file=", "--no-site-packages", "--ignore-missing-imports"]
    options += ["--namespace-packages", "--explicit-package-bases", f"--cache-dir={os.devnull}"]
    modules = sorted(name for name in found if not name.endswith("__init__.py"))
    return mypycify(
        [*options, *modules],
        group_name="distributed_mobility",
        opt_level=os.environ.get("DISTRIBUTED_MOBILITY_OPTIMISE", "3"),
        debug_level="0",
    )


setup(
    packages=[
        *find_packages(include=["dmm_wire*", "dhcp_cmd*", "relay_maar*"]),
        "dhcp_cmd.schema",
        *(f"dhcp_cmd.schema.{name}" for name in find_packages("schema")),
    ],
    package_dir={"dhcp_cmd.schema": "schema"},
    setup_requires=compiler(),
    ext_modules=extensions(),
)
