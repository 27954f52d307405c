"""Microsoft's own client, azureml-model-management-sdk, as published, in an environment of its own.

It was written for Python 3.5 to 3.7: it makes the function that calls a service with the arguments that types.CodeType
had there, and imports `imp`. `ON_A_NEW_PYTHON` gives it both; not a line of its files is changed.
"""

from support.environments import Environment

__all__ = ["ON_A_NEW_PYTHON", "UNIT_TESTS", "install_microsofts"]

VERSION = "1.0.1b6.post1"
UNIT_TESTS = "tests/unit_tests"  # of its wheel, in site-packages

ON_A_NEW_PYTHON = '''
import sys, types

if sys.version_info >= (3, 12):
    sys.modules["imp"] = types.ModuleType("imp")  # it is imported; a class given as `use` needs nothing of it

import azureml.common.utils


class _Types:
    """The module `types`, whose CodeType takes what it took in Python 3.7."""

    FunctionType = types.FunctionType

    @staticmethod
    def CodeType(argcount, kwonly, nlocals, stacksize, flags, code, consts, names, varnames, filename, name, line, _):
        names_of_locals = (*varnames, *(f"_{place}" for place in range(len(varnames), nlocals)))
        template = (lambda: None).__code__
        return template.replace(
            co_argcount=argcount,
            co_kwonlyargcount=kwonly,
            co_nlocals=len(names_of_locals),
            co_stacksize=stacksize,
            co_flags=flags,
            co_code=code,
            co_consts=consts,
            co_names=names,
            co_varnames=names_of_locals,
            co_filename=filename,
            co_name=name,
            co_firstlineno=line,
        )


azureml.common.utils.types = _Types
'''


def install_microsofts(environment: Environment) -> None:
    """With what it needs and is not lent. From the package index, as others get it."""
    environment.install(f"azureml-model-management-sdk=={VERSION}", "adal==1.2.7", "six", "liac-arff")
