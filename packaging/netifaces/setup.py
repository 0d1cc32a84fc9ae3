"""Adds dhcpkit-typing.pth to the wheel, beside the packages: setuptools has no setting for that."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PTH = "dhcpkit-typing.pth"


class BuildWithPth(build_py):
    """build_py is skipped where there is no package, so `setup` is told of one module: the .pth file."""

    def run(self) -> None:
        """Copy the file to where pure Python modules go."""
        self.mkpath(self.build_lib)
        self.copy_file(PTH, str(Path(self.build_lib) / PTH), preserve_mode=False)

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """What is to be installed: the file alone."""
        return [str(Path(self.build_lib) / PTH)]

    def get_source_files(self) -> list[str]:
        """What a source distribution needs besides its metadata."""
        return [PTH]


setup(py_modules=["dhcpkit-typing"], cmdclass={"build_py": BuildWithPth})
