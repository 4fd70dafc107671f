"""The rules of the house, held by reading the source: who imports whom, how big things are, what is never written."""

import ast
import re
import sys
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("grpo_cli", "pipelines")
STAGE_FILES = {"preprocess", "train", "evaluate", "sample", "inspect_rewards", "report", "export", "serve"}
ROOMS_DOWNWARDS = (
    *(STAGE_FILES | {"checkup", "preflight", "status"},),
    {"reports"},
    {"cards"},
    {"plan"},
    {"installed"},
    {"stages"},
    {"training"},
    {"evaluation"},
    {"algorithms"},
    {"generation"},
    {"rewards"},
    {"sandbox"},
    {"tokens"},
    {"rows"},
    {"models"},
    {"monitoring"},
    {"config"},
    {"backend"},
    {"blas", "plugins", "bundled", "files", "hub"},
    {"errors"},
)
"""A room imports itself and what is further down; rooms of one line do not know each other."""

ONLY = {"stages": {"errors", "files"}, "config": {"errors"}, "sandbox": {"errors"}}
"""Rooms that stand alone, and the few things of ours they may use."""

NEVER = {
    "rewards": {"mlx", "mlx_lm"},
    "sandbox": {"mlx", "mlx_lm", "numpy"},
    "stages": {"mlx", "mlx_lm", "numpy"},
    "config": {"mlx", "mlx_lm", "numpy"},
    "algorithms": {"mlx_lm", "pipelines.models"},
}
BOUNDARIES = {"grpo_cli/app.py", "pipelines/rewards/composer.py"}
"""The only files that may catch everything: once each, and it is counted below."""

MOST_LINES, MOST_FUNCTION_LINES = 400, 60
SPEAKING = re.compile(r"print|typer\.s?echo|sys\.std(out|err)\.write")
NAMELESS = {"utils", "util", "common", "core", "helpers", "helper", "misc"}


@cache
def files(*folders: str) -> tuple[Path, ...]:
    found = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return tuple(sorted(path for path in found if "__pycache__" not in path.parts))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {module_name(path): path for path in files(*PACKAGES)}


def imported_names(node: ast.AST) -> Iterator[str]:
    """Dotted names one statement imports; `from a import b` is `a.b` where that is a module of ours, else `a`."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "relative import"
        for alias in node.names:
            full = f"{node.module}.{alias.name}"
            yield full if full in modules() else str(node.module)


@cache
def imports(path: Path) -> frozenset[str]:
    """Everything the file imports anywhere, inside functions and under TYPE_CHECKING too."""
    return frozenset(name for node in ast.walk(tree(path)) for name in imported_names(node))


def module_level(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements that run at import: all but the bodies of functions and what only type checkers read."""
    for node in body:
        yield node
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not for_type_checkers(node):
            for field in ("body", "orelse", "finalbody"):
                yield from module_level(getattr(node, field, []))


def for_type_checkers(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def room(name: str) -> str:
    """`pipelines.rewards.base` is in the room `rewards`, `pipelines.errors` is a room of its own."""
    return name.split(".")[1] if "." in name else name


def rank(room_name: str) -> int:
    for level, rooms in enumerate(ROOMS_DOWNWARDS):
        if room_name in rooms:
            return level
    pytest.fail(f"pipelines/{room_name} has no place in the order of imports")


def ours(path: Path) -> list[str]:
    return [name for name in imports(path) if name.startswith("pipelines.")]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree(path)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)))


def test_there_is_something_to_check():
    assert len(modules()) > 50
    assert "pipelines.errors" in imports(ROOT / "pipelines/bundled.py")


def test_imports_only_go_down():
    wrong = [
        f"{relative(path)} imports {name}"
        for path in files("pipelines")
        for name in ours(path)
        if (own := room(module_name(path))) != "pipelines" and room(name) != own and rank(room(name)) <= rank(own)
    ]
    assert not wrong


def test_the_package_itself_imports_nothing():
    assert not imports(ROOT / "pipelines/__init__.py")
    assert not imports(ROOT / "grpo_cli/__init__.py")


def test_domain_does_not_know_the_command_line():
    wrong = [relative(path) for path in files("pipelines") if any(n.startswith("grpo_cli") for n in imports(path))]
    assert not wrong


@pytest.mark.parametrize("standing_alone", ONLY)
def test_rooms_that_stand_alone(standing_alone):
    allowed = {standing_alone, *ONLY[standing_alone]}
    used = {room(name) for path in files(f"pipelines/{standing_alone}") for name in ours(path)}
    assert used <= allowed


@pytest.mark.parametrize("restricted", NEVER)
def test_what_a_room_never_imports(restricted):
    wrong = [
        f"{relative(path)} imports {name}"
        for path in files(f"pipelines/{restricted}")
        for name in imports(path)
        for banned in NEVER[restricted]
        if f"{name}.".startswith(f"{banned}.")
    ]
    assert not wrong


def test_rooms_with_mlx_load_the_fast_blas_first():
    """`import pipelines.backend` in the room's `__init__` runs before any file of the room imports MLX."""
    for path in files("pipelines"):
        at_import = {name for node in module_level(tree(path).body) for name in imported_names(node)}
        if any(name.split(".")[0] in ("mlx", "mlx_lm") for name in at_import) and path.name != "backend.py":
            init = path.parent / "__init__.py"
            assert path.parent.name != "pipelines", f"{relative(path)} imports mlx at module level, outside a room"
            assert "pipelines.backend" in imports(init), f"{relative(init)} must import pipelines.backend"


def test_no_cycles_between_files():
    edges = {name: {n for n in imports(path) if n in modules()} - {name} for name, path in modules().items()}
    finished: set[str] = set()

    def visit(name: str, trail: list[str]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name not in finished:
            for target in edges[name]:
                visit(target, [*trail, name])
            finished.add(name)

    for name in edges:
        visit(name, [])


def test_command_line_is_light_at_module_level():
    allowed = {*sys.stdlib_module_names, "typer", "grpo_cli"}
    wrong = [
        f"{relative(path)} imports {name}"
        for path in files("grpo_cli")
        for node in module_level(tree(path).body)
        for name in imported_names(node)
        if name.split(".")[0] not in allowed
    ]
    assert not wrong


def test_only_two_places_catch_everything():
    catching = [
        relative(path)
        for path in files(*PACKAGES)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler) and catches_everything(node)
    ]
    assert sorted(catching) == sorted(BOUNDARIES)


def catches_everything(handler: ast.ExceptHandler) -> bool:
    named = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)} if handler.type else set()
    return handler.type is None or bool(named & {"Exception", "BaseException"})


def test_words_come_out_of_one_place():
    """`print` nowhere; stdout in the command line's output, or a file run by itself; the progress line is on stderr."""
    speaking = {
        relative(path)
        for path in files(*PACKAGES)
        for statement in tree(path).body
        if not (isinstance(statement, ast.If) and ast.unparse(statement.test) == "__name__ == '__main__'")
        for node in ast.walk(statement)
        if isinstance(node, ast.Call) and SPEAKING.fullmatch(ast.unparse(node.func))
        if (relative(path), ast.unparse(node.func)) != ("pipelines/monitoring/sinks.py", "sys.stderr.write")
    }
    assert speaking <= {"grpo_cli/output.py", "grpo_cli/app.py"}


def test_nothing_is_mocked_in_the_product():
    wrong = [relative(path) for path in files(*PACKAGES) if any("mock" in name for name in imports(path))]
    assert not wrong


def test_files_are_short():
    everything = files(*PACKAGES, "tests", "benchmarks")
    sizes = {relative(path): len(path.read_text(encoding="utf-8").splitlines()) for path in everything}
    assert {name: size for name, size in sizes.items() if size > MOST_LINES} == {}


def test_functions_are_short():
    """Counted from the docstring on: a command's options are a table, not code."""
    sizes = {
        f"{relative(path)}:{function.name}": (function.end_lineno or 0) - function.body[0].lineno + 1
        for path in files(*PACKAGES, "tests", "benchmarks")
        for function in functions(path)
    }
    assert {name: size for name, size in sizes.items() if size > MOST_FUNCTION_LINES} == {}


def test_every_file_says_its_one_idea():
    everything = files(*PACKAGES, "tests", "benchmarks")
    assert [relative(path) for path in everything if not ast.get_docstring(tree(path))] == []


def test_rooms_have_empty_doors():
    """An `__init__` holds a docstring; what `config` and `rewards` export, and the BLAS, are the exceptions."""
    for path in files("pipelines"):
        if path.name == "__init__.py" and path.parent.name not in ("config", "rewards"):
            assert imports(path) <= {"pipelines.backend"}, relative(path)
            assert len(tree(path).body) <= 2, relative(path)


def test_names_say_something():
    parts = {part for path in files(*PACKAGES, "tests") for part in path.relative_to(ROOT).with_suffix("").parts}
    assert not parts & NAMELESS


def test_stage_files_stay_apart():
    stages = [path for path in files("pipelines") if path.parent.name == "pipelines" and path.stem in STAGE_FILES]
    for path in stages:
        assert not {room(name) for name in ours(path)} & STAGE_FILES, relative(path)


def test_the_order_names_only_rooms_that_may_exist():
    """A room listed twice would have two places."""
    flat = [name for rooms in ROOMS_DOWNWARDS for name in sorted(rooms)]
    assert len(flat) == len(set(flat))
    assert all(above.isdisjoint(below) for above, below in pairwise(ROOMS_DOWNWARDS))
