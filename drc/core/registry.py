"""Things of one kind by the name that users type: criteria, strategies, and the like."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Generic, TypeVar

from drc.core.errors import UsageError, unknown_name

T = TypeVar("T")


class Registry(Generic[T]):
    """What the modules of a package register, each under a name of its own.

    The modules are imported when a name is first asked for, so that a file put into the package
    is found without further ado.

    Args:
        kind: what one of them is, for messages: "search strategy".
        package: whose modules register some: "drc.selection.widths".
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._known: dict[str, T] = {}
        self._imported = False

    def add(self, name: str, thing: T) -> None:
        """Register a thing. Raises ValueError for a name that is taken."""
        if name in self._known:
            raise ValueError(f"the {self.kind} {name!r} is already registered")
        self._known[name] = thing

    def names(self) -> list[str]:
        """All names, in order."""
        self._import()
        return sorted(self._known)

    def get(self, name: str) -> T:
        """The thing of a name. Raises UsageError, which offers the nearest names."""
        self._import()
        if name not in self._known:
            raise UsageError(unknown_name(self.kind, name, self._known))
        return self._known[name]

    def _import(self) -> None:
        if self._imported:
            return
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        self._imported = True
