"""The house rules a reader relies on: who may import whom, what the core may not touch, what is never run."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "mopo_cli"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
# From the ground up: a module may import its own room and the rooms below, and no room stands beside another.
ROOMS = (
    *("errors", "__init__", "engine", "nets", "dynamics", "agents", "tasks", "evaluation", "store", "config", "data"),
    *("policy", "report", "placing", "stages", "bench", "cli", "__main__"),
)
FLOORS = {name: floor for floor, name in enumerate(ROOMS)}
PURE = ("nets", "dynamics", "agents", "engine", "tasks")
TOUCHES_THE_WORLD = {
    *("os", "io", "pathlib", "shutil", "tempfile", "glob", "sys", "signal", "subprocess"),
    *("time", "datetime", "random", "logging", "warnings", "h5py", "rich", "typer"),
}
# Threads, processes and the interpreter: what the engine is for.
MACHINERY = ("mopo_cli.engine.parallel", "mopo_cli.engine.traced")
TORCH_DRAWS = {
    *("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"),
    *("rand_like", "randn_like", "randint_like", "manual_seed", "seed", "get_rng_state", "set_rng_state"),
}
IN_PLACE_DRAWS = {
    *("normal_", "uniform_", "bernoulli_", "exponential_", "random_", "trunc_normal_"),
    *("kaiming_uniform_", "kaiming_normal_", "xavier_uniform_", "xavier_normal_", "orthogonal_"),
}
RUNS_CODE = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
TORCH_FREE = (
    "cli",
    "config",
    "errors",
    "report",
    "data.registry",
    *(f"store.{m}" for m in ("run", "atomic")),
)
TORCH_FREE = (*TORCH_FREE, "store.lineage", "store.lock", "store.yaml_text")
# What fetch-data and show need of a file: torch takes twice as long to import as all else.
TORCH_FREE = (*TORCH_FREE, "stages.fetch_data", "stages.common.check_data", "data.files", "tasks.termination")


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@cache
def nodes(module: str) -> list[ast.AST]:
    return list(ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))))


def imports(module: str) -> Iterator[str]:
    """Every module that ``module`` imports anywhere, as an absolute name."""
    for node in nodes(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports by a relative name"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in MODULES else node.module


def imports_of(module: str) -> set[str]:
    return {name for name in imports(module) if name.split(".")[0] == "mopo_cli"}


def dotted(node: ast.expr) -> str:
    return ast.unparse(node) if isinstance(node, (ast.Name, ast.Attribute)) else ""


def calls(module: str) -> Iterator[tuple[str, ast.Call]]:
    for node in nodes(module):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


def test_every_room_has_its_floor() -> None:
    assert {room(module) for module in MODULES} <= FLOORS.keys()


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    for name in imports_of(module):
        assert name in MODULES, f"{module} imports {name}, which is not there"
        assert FLOORS[room(name)] <= FLOORS[room(module)], f"{module} imports {name}"
        if room(module) in PURE:
            assert room(name) in (*PURE, "errors"), f"{module} is pure and imports {name}"


def test_no_module_imports_itself_in_the_end() -> None:
    graph = {module: imports_of(module) for module in MODULES}
    while leaves := {module for module, names in graph.items() if not names & graph.keys()}:
        graph = {module: names for module, names in graph.items() if module not in leaves}
    assert not graph, f"a circle among {sorted(graph)}"


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) in PURE])
def test_the_core_is_pure(module: str) -> None:
    for name in imports(module):
        assert module in MACHINERY or name.split(".")[0] not in TOUCHES_THE_WORLD, f"{module} imports {name}"
    for name, call in calls(module):
        assert name not in ("print", "open", "input"), f"{module}:{call.lineno} calls {name}"
        assert not name.startswith(("np.random.", "numpy.random.")) or name.endswith((".Generator", ".SeedSequence"))
        last = name.rpartition(".")[2]
        draws = (name.startswith("torch.") and last in TORCH_DRAWS) or last in IN_PLACE_DRAWS
        seeded = any(keyword.arg == "generator" for keyword in call.keywords)
        assert not draws or seeded, f"{module}:{call.lineno} draws from the global random state: {name}"


@pytest.mark.parametrize("module", [module for module in MODULES if room(module) not in ("report", "__main__")])
def test_only_report_prints(module: str) -> None:
    assert "print" not in [name for name, _ in calls(module)]


@pytest.mark.parametrize("module", MODULES)
def test_nothing_that_is_loaded_can_run(module: str) -> None:
    assert not RUNS_CODE & {name.split(".")[0] for name in imports(module)}
    for name, call in calls(module):
        where = f"{module}:{call.lineno} {name}"
        assert name not in ("eval", "exec", "compile", "__import__", "torch.load", "torch.save"), where
        assert name not in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system"), where
        for keyword in call.keywords:
            value = keyword.value.value if isinstance(keyword.value, ast.Constant) else None
            assert (keyword.arg, value) != ("weights_only", False), where
            assert keyword.arg not in ("allow_pickle", "shell") or value is False, where


def test_the_command_line_starts_without_torch() -> None:
    names = [f"mopo_cli.{name}" for name in TORCH_FREE]
    modules = [m for m in MODULES if any(m == name or m.startswith(f"{name}.") for name in names)]
    assert "mopo_cli.cli.app" in modules
    script = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert 'torch' not in sys.modules, name\n"
    )
    done = subprocess.run([sys.executable, "-c", script, *modules], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
