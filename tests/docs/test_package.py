"""The wheel: one top-level name, every file of the five folders, and it works beside a stranger's `ops`."""

from __future__ import annotations

import importlib.util
import json
import os
import pickle
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import view_pages

from core.loader import load_registry

ROOT = Path(__file__).parents[2]
one_browser = view_pages.one_browser
FOLDERS = ("core", "ops", "models", "plugins", "configs")
ESSENTIALS = ("pyproject.toml", "README.md", "LICENSE")


def tracked() -> list[str]:
    """Files of the five folders under version control; where there is none, all that are no caches."""
    if (ROOT / ".git").exists() and shutil.which("git"):
        listed = subprocess.run(
            ["git", "ls-files", "-z", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]
    found = (p for folder in FOLDERS for p in (ROOT / folder).rglob("*") if p.is_file() and p.suffix != ".pyc")
    return [p.relative_to(ROOT).as_posix() for p in found]


def in_wheel(name: str) -> str:
    """Where a file of the checkout lies in the wheel."""
    return name if name.startswith("core/") else f"core/{name}"


def builder() -> list[str]:
    """How pip builds here: with the build backend that is installed, else with one that it fetches."""
    have = importlib.util.find_spec("hatchling") and importlib.util.find_spec("editables")
    return [sys.executable, "-m", "pip", "wheel", "--no-deps", "-q", *(["--no-build-isolation"] if have else [])]


@pytest.fixture(autouse=True)
def only_built_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shipped or installed beside corelm must not decide these tests."""
    monkeypatch.setenv("CORELM_PLUGINS", "")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of the tracked files alone, so that what only lies about here cannot help."""
    pytest.importorskip("pip")
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in (*ESSENTIALS, *tracked()):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():
            shutil.copyfile(ROOT / name, tree / name)
    done = subprocess.run([*builder(), "-w", str(out), str(tree)], capture_output=True, text=True, timeout=300)
    if done.returncode and "--no-build-isolation" not in builder():
        pytest.skip(f"no build backend is installed, and none could be fetched: {done.stderr.strip()[-200:]}")
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("corelm-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as an installer fills it, with an unrelated top-level `ops` beside us."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    (site / "ops").mkdir()
    (site / "ops" / "__init__.py").write_text("STRANGER = True\n")
    return site


def run(site: Path, code: str, tmp_path: Path, **environment: str) -> str:
    """`code` in a process that sees `site` and the installed dependencies, and not the checkout."""
    guard = f"import sys; sys.path[:0] = [{str(site)!r}]; sys.meta_path[:] = [f for f in sys.meta_path if "
    guard += "'editable' not in type(f).__module__ + repr(f)]; import core; "
    guard += f"assert core.__file__.startswith({str(site)!r}), core.__file__; "
    clean = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"CORELM_PLUGINS": "", **environment}
    command = [sys.executable, "-c", guard + code]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=clean, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_tracked_file_of_the_five_folders_is_in_the_wheel(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    missing = [name for name in tracked() if in_wheel(name) not in names]
    assert tracked() and not missing


def test_core_is_the_only_top_level_name(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"core"}


def test_the_wheel_has_the_command_the_licence_and_the_marker_of_types(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    (entry_points,) = [n for n in names if n.endswith("entry_points.txt")]
    assert "core = core.__main__:main" in archive.read(entry_points).decode()
    assert "core/py.typed" in names
    assert any(n.endswith("licenses/LICENSE") for n in names)


def test_our_ops_and_a_strangers_ops_live_together(installed: Path, tmp_path: Path) -> None:
    code = (
        "import ops; assert ops.STRANGER; from core.loader import load_registry; r = load_registry(); "
        "import core.ops; assert core.ops.__file__ != ops.__file__; print(len(r.ops))"
    )
    assert int(run(installed, code, tmp_path)) > 0


def test_the_installed_command_lists_what_the_checkout_lists(installed: Path, tmp_path: Path) -> None:
    code = "import core.cli; core.cli.main(['plugins', '--json'])"
    listed = {record["name"]: record for record in json.loads(run(installed, code, tmp_path))}
    here = {plugin.name: plugin for plugin in load_registry().plugins}
    assert {name: record["brings"] for name, record in listed.items()} == {n: p.brings for n, p in here.items()}
    assert Path(listed["ops"]["path"]) == installed / "core" / "ops"
    assert Path(listed["llama"]["path"]) == installed / "core" / "plugins" / "llama"


def test_the_course_is_taken_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = (
        "import core.cli; run = core.cli.run; codes = [run(['learn', 'show', '9']), run(['learn', 'start', 'p01']), "
        "run(['learn', 'check', 'p01'])]; assert codes == [0, 0, 1], codes"
    )
    out = run(installed, code, tmp_path, CORELM_PLUGINS="course")
    assert "# 9. First kernels" in out and "written   no   y[0] is not written" in out
    assert "YOUR TURN" in (tmp_path / "course/p01_guard.cu").read_text("utf-8")


def test_a_page_of_core_view_is_drawn_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    """With the scripts of all views, which are files of the package."""
    code = (
        "from pathlib import Path; from core.view.lenses import core_lenses; from core.view.looking import View; "
        "from core.view.page import page_of; views = [View(lens(), 'core view', own=True) for lens in core_lenses()]; "
        "Path('page.html').write_text(page_of(views, 'wheel'), 'utf-8'); print(len(views))"
    )
    count = int(run(installed, code, tmp_path))
    with view_pages.opened(tmp_path / "page.html") as page:
        assert page.locator("[role=tab]").count() == count
        for key in ("2", "ArrowRight", "1", "f"):
            page.keyboard.press(key)
            assert page.inner_text("#panel pre") == "core view", "a view without data has a command, whatever the key"


def test_the_installed_command_draws_a_kernel(installed: Path, tmp_path: Path) -> None:
    """With the kernel's source, the simulator's own files and the page's scripts, all of the wheel."""
    words = ["view", "--kernel", "gelu.vector", "--shape", "x=3,131", "--direction", "forward", "--lens", "kernel"]
    words += ["--no-open", "--out", "kernel.html"]
    run(installed, f"import core.cli; core.cli.main({words!r})", tmp_path, CORELM_CACHE=str(tmp_path / "cache"))
    with view_pages.opened(tmp_path / "kernel.html") as page:
        assert "gelu.vector" in page.inner_text("#panel")


def test_a_class_has_one_name_in_wheel_and_checkout(installed: Path, tmp_path: Path) -> None:
    """So that tracebacks, debuggers and pickles say the same everywhere: what one wrote, the other reads."""
    code = (
        "import pickle; from core.loader import load_registry; r = load_registry(); "
        "found = [type(r.reference(n)) for n, op in r.ops.items() if not op.replaces]; "
        "print(pickle.dumps(found).hex())"
    )
    classes = pickle.loads(bytes.fromhex(run(installed, code, tmp_path)))
    registry = load_registry()
    assert classes == [type(registry.reference(name)) for name, op in registry.ops.items() if not op.replaces]


def test_a_bare_checkout_works_without_being_installed(tmp_path: Path) -> None:
    tree = tmp_path / "checkout"
    for name in tracked():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tree / name)
    (tmp_path / "elsewhere").mkdir()
    code = "from core.loader import load_registry; print(load_registry().plugins[0].path)"
    assert Path(run(tree, code, tmp_path / "elsewhere").strip()) == tree / "ops"
