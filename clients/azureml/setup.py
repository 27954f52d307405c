"""pyproject.toml says everything but this: a .pth file goes beside the packages, which setuptools has no word for."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

_PTH = "sessionpools_azureml.pth"


class BuildWithPth(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            self.copy_file(str(Path("src") / _PTH), str(Path(self.build_lib) / _PTH))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        return [*super().get_outputs(include_bytecode), str(Path(self.build_lib) / _PTH)]


setup(cmdclass={"build_py": BuildWithPth})
