"""Names the packages to install; everything else is in pyproject.toml.

schema/ is a folder of its own in the source, for the people who read SQL, and is installed as
`dhcp_cmd.schema`, so that a wheel can upgrade a database.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["dmm_wire*", "dhcp_cmd*", "relay_maar*"]),
        "dhcp_cmd.schema",
        *(f"dhcp_cmd.schema.{name}" for name in find_packages("schema")),
    ],
    package_dir={"dhcp_cmd.schema": "schema"},
)
