"""Reading what the user asked for: command-line tokens and suite files become a frozen `Suite` and `Settings`."""

from bench.config.formats import FormatMaterial, Wording
from bench.config.load import Request, load, suite_names
from bench.config.schema import AXES, Budget, DataRef, Suite, Task, Template
from bench.config.settings import DataSettings, Settings

__all__ = [
    "AXES",
    "Budget",
    "DataRef",
    "DataSettings",
    "FormatMaterial",
    "Request",
    "Settings",
    "Suite",
    "Task",
    "Template",
    "Wording",
    "load",
    "suite_names",
]
