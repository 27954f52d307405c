"""Lets `import azureml.deploy` find sessionpools_azureml where nothing else provides it. Run by
sessionpools_azureml.pth when Python starts, so it is small, imports nothing by then, and answers for `azureml` only.

It stands first on sys.meta_path and asks all others before it answers. So Microsoft's packages are never shadowed:
where its azureml-model-management-sdk is installed, all of `azureml` is Microsoft's; where only others of its packages
are (azureml-core has a regular package `azureml` without `deploy`), they stay what they are, and `azureml.deploy` and
`azureml.common` are found here. It has to be first because the modules it gives are packages with a folder, in which
the usual finder would otherwise find their submodules once more, as modules of their own.

`azureml.deploy` and `sessionpools_azureml.deploy` are the same module, so a class is one whatever it was imported by.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # typing's: a module that takes longer to import than all of this
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

_THEIRS = "azureml"
_OURS = "sessionpools_azureml"
_PARTS = (f"{_THEIRS}.deploy", f"{_THEIRS}.common")
_SPEC = type(sys.__spec__)  # importlib.machinery.ModuleSpec, without its import


class Finder:
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != _THEIRS and not name.startswith(f"{_THEIRS}."):
            return None
        if name == _THEIRS:
            elsewhere = _found_elsewhere(self, name, path) is not None
            return None if elsewhere else _SPEC(name, _Root(), is_package=True)  # type: ignore[arg-type]  # an empty path
        if not any(name == part or name.startswith(f"{part}.") for part in _PARTS) or self.microsofts():
            return None
        import importlib.util

        real = importlib.util.find_spec(_OURS + name[len(_THEIRS) :])
        if real is None:
            return None
        is_package = real.submodule_search_locations is not None
        return _SPEC(name, _Alias(real.name), is_package=is_package)  # type: ignore[arg-type]

    def microsofts(self) -> bool:
        """Whether somebody else provides azureml.deploy."""
        package = sys.modules.get(_THEIRS)
        if package is not None:
            path = getattr(package, "__path__", None)  # with what pkgutil has added to it
        else:
            spec = _found_elsewhere(self, _THEIRS, None)
            path = spec.submodule_search_locations if spec is not None else None
        return bool(path) and _found_elsewhere(self, _PARTS[0], path) is not None


class _Root:
    """Of the package `azureml` where there is none: empty."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        module.__doc__ = f"The part of Microsoft's azureml that {_OURS} provides: azureml.deploy and azureml.common."


class _Alias:
    """A module under a second name."""

    def __init__(self, real: str) -> None:
        self._real = real
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        import importlib

        module = importlib.import_module(self._real)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec  # the import system has just given it that of the second name


def _found_elsewhere(finder: Finder, name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    for other in sys.meta_path:
        if other is finder:
            continue
        find = getattr(other, "find_spec", None)
        spec: ModuleSpec | None = find(name, path) if find is not None else None
        if spec is not None:
            return spec
    return None


FINDER = Finder()
if FINDER not in sys.meta_path:
    sys.meta_path.insert(0, FINDER)
