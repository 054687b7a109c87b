"""How a piece of the product is damaged in this process, and whole again afterwards.

An ``Edit`` compiles a function's source with one passage replaced and exchanges its code
object, so that the damage is felt wherever the function was imported to. A ``Constant`` is
another value of a module's. A name, or a passage, that is not there is an error: nothing
may come to damage nothing because the product has changed.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import NamedTuple


class NothingDamaged(Exception):
    """The product is not what the mutant was written for."""


class Edit(NamedTuple):
    """``before`` in the source of ``owner.name`` is ``after`` instead."""

    owner: ModuleType | type
    name: str
    before: str
    after: str

    @property
    def where(self) -> str:
        """What is damaged."""
        return _where(self.owner, self.name)

    @property
    def present(self) -> object:
        """What is there now."""
        return self.function().__code__

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Damaged while entered."""
        function = self.function()
        honest = function.__code__
        function.__code__ = _damaged(self)
        try:
            yield
        finally:
            function.__code__ = honest

    def function(self) -> FunctionType:
        """The one to damage, whatever it is wrapped in."""
        found = vars(self.owner).get(self.name)
        if isinstance(found, property):
            found = found.fget
        elif isinstance(found, classmethod | staticmethod):
            found = found.__func__
        if not isinstance(found, FunctionType):
            raise NothingDamaged(f"{self.where} is not a function")
        return found


class Constant(NamedTuple):
    """A module's constant has another value."""

    owner: ModuleType
    name: str
    value: object

    @property
    def where(self) -> str:
        """What is damaged."""
        return _where(self.owner, self.name)

    @property
    def present(self) -> object:
        """What is there now."""
        if self.name not in vars(self.owner):
            raise NothingDamaged(f"{self.where} is not there")
        return vars(self.owner)[self.name]

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Damaged while entered."""
        honest = self.present
        if honest == self.value:
            raise NothingDamaged(f"{self.where} is {self.value!r} already")
        setattr(self.owner, self.name, self.value)
        try:
            yield
        finally:
            setattr(self.owner, self.name, honest)


class Mutant(NamedTuple):
    """A small, named damage that the simulator must find."""

    name: str
    breaks: str
    damages: tuple[Edit | Constant, ...]

    @property
    def where(self) -> str:
        """All that is damaged."""
        return ", ".join(dict.fromkeys(damage.where for damage in self.damages))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Damaged while entered, in this process alone."""
        with ExitStack() as stack:
            for damage in self.damages:
                stack.enter_context(damage.applied())
            yield


def mutant(name: str, breaks: str, *damages: Edit | Constant) -> Mutant:
    """A mutant of one damage or several."""
    return Mutant(name, breaks, damages)


def _where(owner: ModuleType | type, name: str) -> str:
    place = owner.__name__ if isinstance(owner, ModuleType) else owner.__qualname__
    return f"{place}.{name}"


@cache
def _damaged(edit: Edit) -> CodeType:
    """Compiled once: the file on disk may change while mutants run."""
    honest = edit.function().__code__
    source = textwrap.dedent(inspect.getsource(honest))
    if source.count(edit.before) != 1:
        raise NothingDamaged(f"{edit.where} does not say once: {edit.before}")
    source = source.replace(edit.before, edit.after)
    # What encloses it is only there for the names of the closure, ``__class__`` above all.
    outer = "".join(f"    {name} = None\n" for name in honest.co_freevars)
    source = f"def _():\n{outer}{textwrap.indent(source, '    ')}"
    module = compile(source, f"<mutant of {edit.where}>", "exec")
    return _inside(_inside(module, "_"), honest.co_name)


def _inside(code: CodeType, name: str) -> CodeType:
    found = [one for one in code.co_consts if isinstance(one, CodeType) and one.co_name == name]
    if len(found) != 1:
        raise NothingDamaged(f"{len(found)} functions {name} in {code.co_filename}")
    return found[0]
