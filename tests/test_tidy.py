"""House rules no stock linter checks. Each has a reason; an exception belongs here, named."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("raftq", "api", "statemachine")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
TESTS = sorted({*(ROOT / "tests").rglob("*.py")} - {Path(__file__)})  # This one has bad examples.
SIMULATION = ROOT / "tests" / "simulation"  # A package: it has a command line of its own.
FUNCTION_LINES_MAX = 60  # One screen.
MODULE_LINES_MAX = 500  # One sitting.

# Names that say nothing about what is inside, and so collect everything.
VAGUE = {"common", "helpers", "misc", "util", "utils"}

# Calls whose answer differs between two replicas of the same log.
IMPURE_CALLS = {
    "__import__": "code from elsewhere",
    "breakpoint": "IO",
    "eval": "code from elsewhere",
    "exec": "code from elsewhere",
    "float": "text form and rounding are not ours to promise",
    "frozenset": "iteration order is salted",
    "hash": "salted per process",
    "id": "an address",
    "input": "IO",
    "open": "IO",
    "print": "IO",
    "set": "iteration order is salted; use dict.fromkeys or sorted",
}
EXEMPTION = re.compile(
    r"#\s*(?:noqa|type:\s*ignore)(?:\S*:?\s*[A-Z]+\d+(?:,\s*[A-Z]+\d+)*|\[[^]]*\])?"
)


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module_violations(path: Path, source: str, tree: ast.Module) -> Iterator[str]:
    if not ast.get_docstring(tree):
        yield "no module docstring"
    if source.count("\n") > MODULE_LINES_MAX:
        yield f"over {MODULE_LINES_MAX} lines"
    if path.stem in VAGUE:
        yield "a vague name"
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    has_code = len(tree.body) > 1
    if has_code and not any(node.module == "__future__" for node in imports):
        yield "no `from __future__ import annotations`"


def line_violations(source: str) -> Iterator[str]:
    for number, line in enumerate(source.splitlines(), start=1):
        exemption = EXEMPTION.search(line)
        if exemption and not re.search(r"\w{2}", line[exemption.end() :]):
            yield f"{number}: an exemption without its reason beside it"
        if re.search(r"#.*\b(TODO|FIXME|XXX)\b", line):
            yield f"{number}: unfinished work belongs in an issue"


def long_functions(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            if node.end_lineno - node.lineno >= FUNCTION_LINES_MAX:
                yield f"{node.lineno}: {node.name} is over {FUNCTION_LINES_MAX} lines"


def impurities(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            name = node.func.id
            if name in IMPURE_CALLS:
                yield f"{node.lineno}: {name}() is {IMPURE_CALLS[name]}"
        if isinstance(node, ast.Set | ast.SetComp):
            yield f"{node.lineno}: no sets in replicated state"
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            yield f"{node.lineno}: no floats in replicated state"
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            yield f"{node.lineno}: / makes a float; use //"


def violations(path: Path) -> list[str]:
    source = path.read_text()
    tree = ast.parse(source)
    found = [*module_violations(path, source, tree), *line_violations(source)]
    found += long_functions(tree)
    if relative(path).startswith("statemachine/"):
        found += impurities(tree)
    return [f"{relative(path)}: {violation}" for violation in found]


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_tidy(path: Path) -> None:
    assert violations(path) == []


@pytest.mark.parametrize("path", TESTS, ids=relative)
def test_tests_are_tidy_too(path: Path) -> None:
    # No type checker reads the tests: what they tell it is for people's editors.
    source = path.read_text().replace("# type: ignore", "#")
    assert list(line_violations(source)) == []
    # With one, pytest would take the folder for the package of the same name.
    assert path.name != "__init__.py" or path.is_relative_to(SIMULATION)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("x = 1\n", ["no module docstring"]),
        ('"""D."""\nx = 1\n', ["no `from __future__ import annotations`"]),
        ('"""D."""\n' + "\n" * 500, ["over 500 lines"]),
    ],
)
def test_a_module_is_judged(code: str, said: list[str]) -> None:
    assert list(module_violations(ROOT / "x.py", code, ast.parse(code))) == said


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x = 1  # noqa: S105", 1),
        ("x = 1  # noqa: S105 - the name of its file", 0),
        ("x = 1  # noqa", 1),
        ("x = 1  # type: ignore[attr-defined]", 1),
        ("x = 1  # type: ignore[attr-defined]  # the library has no types", 0),
        ("x = 1  # TODO later", 1),
    ],
)
def test_an_exemption_needs_a_reason(line: str, said: int) -> None:
    assert len(list(line_violations(line))) == said


@pytest.mark.parametrize("code", ["hash(1)", "{1, 2}", "{x for x in y}", "0.5", "a / b", "open(p)"])
def test_the_state_machine_may_not_use(code: str) -> None:
    assert len(list(impurities(ast.parse(code)))) == 1


def test_a_function_of_sixty_one_lines_is_too_long() -> None:
    body = "    x = 1\n" * 59
    assert list(long_functions(ast.parse(f"def f():\n{body}"))) == []
    assert len(list(long_functions(ast.parse(f"def f():\n{body}    x = 1\n")))) == 1
