"""Virtual environments with what is installed as others install it: from our folders, by pip.

Third-party packages are lent from the environment of the tests, so that nothing is downloaded for ours.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from support.tools import ROOT

__all__ = ["AZUREML", "CLIENT", "Environment"]

CLIENT = ROOT / "operator" / "sessionpools" / "client"
AZUREML = ROOT / "clients" / "azureml"
_BUILT = shutil.ignore_patterns("build", "*.egg-info", "__pycache__")


class Environment:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / "bin" / "python"
        venv.create(folder, with_pip=False)
        self.site = next((folder / "lib").glob("python*/site-packages"))
        self.lend(Path(sysconfig.get_path("purelib")))

    def lend(self, site: Path) -> None:
        """Let what is installed there be importable, behind what is installed here. .pth files of there stay unread."""
        (self.site / "zz_lent.pth").write_text(f"{site}\n")

    def install_ours(self) -> None:
        for source in (CLIENT, AZUREML):
            copy = self.folder / "src" / source.name  # pip leaves what it builds in the folder it is given
            shutil.copytree(source, copy, ignore=_BUILT)
            self.install(str(copy), "--no-build-isolation")

    def install(self, *what: str) -> None:
        """By pip, without dependencies."""
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--no-deps", "--quiet", *what]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def add(self, files: dict[str, str]) -> None:
        """Files in its site-packages: a package of somebody else's."""
        for name, content in files.items():
            path = self.site / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    def run(self, code: str, **variables: str) -> str:
        """What the code prints. An AssertionError with what it said, when it fails."""
        done = self.tried(code, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.strip()

    def tried(self, code: str, **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **variables}
        return subprocess.run(
            [str(self.python), "-I", "-c", code],
            capture_output=True,
            text=True,
            env=environment,
            cwd=self.folder,
            timeout=120,
        )
