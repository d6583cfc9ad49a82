"""What importing costs, and which room knows which."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import scgenot

PACKAGE = Path(scgenot.__file__).parent
# The floors, the ground first. A room imports only rooms that stand before its own floor.
HOUSE = (
    ("costs",),
    ("sinkhorn",),
    ("metrics", "datasets"),
    ("coupling",),
    ("flow",),
    ("methods",),
    ("data",),
    ("model",),
    ("baselines",),
    ("tl",),
    ("pl",),
    ("__main__", "_commands", "_demo", "_demo_perturbation"),
)
SHARED = {"_blocks", "_devices", "_messages", "_progress", "_random", "_rng", "_sampling", "_sizes", "_version"}
FLOORS = dict.fromkeys(sorted(SHARED), frozenset()) | {
    room: frozenset(name for below in HOUSE[:number] for name in below) | (set(floor) if "__main__" in floor else set())
    for number, floor in enumerate(HOUSE)
    for room in floor
}
ARRAY_ROOMS = ("costs", "sinkhorn", "metrics", "datasets", "coupling", "flow", "methods")
ABOVE_ARRAYS = {"anndata", "mudata", "scanpy", "scvi", "torch", "lightning"}


def loaded_after(statement: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter holds after a statement."""
    code = f"{statement}\nimport sys\nprint('|'.join(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    return set(done.stdout.strip().splitlines()[-1].split("|"))


def imports_of(path: Path) -> list[str]:
    """Return the full names of all that a file imports, also within functions and for type checkers."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def files_of(room: str) -> list[Path]:
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


def rooms() -> list[str]:
    names = {path.stem if path.suffix == ".py" else path.name for path in PACKAGE.iterdir()}
    return sorted(
        name for name in names - {"__init__", "__pycache__", "py"} if files_of(name) and files_of(name)[0].exists()
    )


def test_importing_is_light():
    loaded = loaded_after("import scgenot; dir(scgenot); scgenot.__version__")
    assert "scgenot" in loaded
    assert loaded & {"torch", "scvi", "jax", "jaxlib", "anndata", "scanpy", "matplotlib", "pandas"} == set()


def test_array_rooms_do_not_load_the_floors_above():
    loaded = loaded_after("import scgenot; scgenot.methods, scgenot.metrics, scgenot.datasets")
    assert "jax" in loaded
    assert loaded & {"anndata", "mudata", "scanpy", "scvi", "torch", "lightning"} == set()


def test_the_model_loads_what_it_needs():
    # What is loaded stays loaded: no process of its own is needed to see it.
    assert scgenot.GENOT.__module__.startswith("scgenot.model")
    assert {"scvi", "anndata", "jax"} <= set(sys.modules)


def test_unknown_names():
    with pytest.raises(AttributeError, match="module 'scgenot' has no attribute 'GENOTT'"):
        _ = scgenot.GENOTT
    assert "GENOT" in dir(scgenot)


def test_every_room_has_a_floor():
    assert set(rooms()) <= set(FLOORS)


@pytest.mark.parametrize("room", FLOORS)
def test_a_room_knows_only_the_floors_below(room):
    for path in files_of(room):
        if not path.exists():
            continue
        for name in imports_of(path):
            if not name.startswith("scgenot."):
                continue
            known = name.split(".")[1]
            known = "model" if known == "GENOT" else known
            if known not in FLOORS:
                continue  # `from scgenot import __version__`
            assert known == room or known in FLOORS[room] | SHARED, f"{path.relative_to(PACKAGE)} imports {name}"


@pytest.mark.parametrize("room", ARRAY_ROOMS)
def test_array_rooms_name_no_library_above(room):
    for path in files_of(room):
        if path in (PACKAGE / "datasets" / "_loaders.py", PACKAGE / "datasets" / "_loaders_r.py"):
            # What it returns is an AnnData; it is imported when one is asked for, as the test above holds.
            continue
        above = {name.split(".")[0] for name in imports_of(path)} & ABOVE_ARRAYS
        assert not above, f"{path.relative_to(PACKAGE)} imports {above}"


def test_one_file_imports_scvi():
    users = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if any(n.split(".")[0] == "scvi" for n in imports_of(path))]  # fmt: skip
    assert users == ["model/_scvi.py"]


def test_nobody_pickles():
    for path in PACKAGE.rglob("*.py"):
        assert not {name.split(".")[0] for name in imports_of(path)} & {"pickle", "dill", "joblib", "torch"}, path
