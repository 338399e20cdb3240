"""What a user installs: the wheel, in a clean environment, in another folder, with each backend used there."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.metadata import Metadata
from pages import commands, is_shown, saved

import layercache

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow

SCRIPT = """
import asyncio, sys
import layercache
from layercache import Caches

assert "site-packages" in layercache.__file__, layercache.__file__
backends = {
    "memory": {"type": "memory"},
    "null": {"type": "null"},
    "redis": {"type": "redis", "url": sys.argv[1], "prefix": "packaging", "codecs": ["json", "zstd", "gzip"]},
    "chain": {"type": "chain", "layers": ["memory", "redis"]},
}
for name in backends:
    with Caches({"backends": backends, "caches": {"default": {"backend": name, "ttl": 30}}}) as caches:
        cache = caches["default"]
        cache.set("k", {"price": [1, 2]})
        assert cache.get("k") == (None if name == "null" else {"price": [1, 2]}), name
        assert asyncio.run(cache.aget_or_set("l", lambda: "x" * 500)) == "x" * 500
        cache.clear()
        print(name, "served from", layercache.__version__)
"""


def run(*words: str | Path, cwd: Path | None = None) -> str:
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheel and sdist, built with the pinned hatchling; no network."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def sdist(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the sdist unpacks to."""
    (archive,) = built.glob("*.tar.gz")
    folder = tmp_path_factory.mktemp("sdist")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    (top,) = folder.iterdir()
    return top


def test_the_wheel_holds_the_packages_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    assert wheel.name.startswith("layercache_framework-")

    names = zipfile.ZipFile(wheel).namelist()

    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {
        "layercache",
        "layercache_chain",
        "layercache_memory",
        "layercache_null",
        "layercache_redis",
    }
    assert {f"{package}/py.typed" for package in tops} <= set(names)
    assert "layercache_redis/scripts/swap.lua" in names
    assert not [name for name in names if name.endswith((".pyc", ".toml"))]


def test_the_wheel_says_what_it_is(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        told = Metadata.from_email(archive.read(name), validate=True)

    assert (told.name, str(told.version)) == ("layercache-framework", layercache.__version__)
    assert (told.license_expression, told.license_files) == ("Apache-2.0", ["LICENSE"])
    assert told.description_content_type == "text/markdown"
    assert told.description == (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"## {told.version} - " in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_sdist_holds_what_the_tests_need_and_what_the_readme_shows(sdist: Path) -> None:
    needed = ["pyproject.toml", "settings.toml", "constraints.txt", "tests/conftest.py", "docs/dashboard.png"]
    readme = (sdist / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", readme) if "://" not in link]

    assert [path for path in needed + links if not (sdist / path).exists()] == []


def test_the_sdist_gives_the_wheel_that_the_checkout_gives(built: Path, tmp_path: Path) -> None:
    (of_sdist,) = built.glob(
        "*.whl"
    )  # `build` makes the wheel from the sdist, unless told to make a wheel alone

    run(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", tmp_path, ROOT)

    (of_checkout,) = tmp_path.glob("*.whl")
    assert contents(of_checkout) == contents(of_sdist)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_works_in_a_clean_environment(built: Path, tmp_path: Path, server_url: str) -> None:
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=True)
    python = environment / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    # the same pins as everywhere, then the wheel itself without asking an index for its name
    pins = _pins("redis", "hiredis", "dynaconf", "pydantic", "orjson", "zstandard")
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *pins)
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", wheel)
    run(python, "-m", "pip", "check", "--disable-pip-version-check")

    printed = run(python, "-c", SCRIPT, server_url, cwd=elsewhere)

    assert [line.split()[0] for line in printed.splitlines()] == ["memory", "null", "redis", "chain"]

    command = environment / "bin" / "layercache"
    without = subprocess.run([command, "check"], capture_output=True, text=True, check=False)
    assert (without.returncode, "layercache-framework[cli]" in without.stderr) == (1, True)
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *_pins("typer", "rich"))
    assert "caches.default.ttl" in run(command, "check", cwd=elsewhere)


def test_the_backend_of_the_guide_is_a_package_that_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = (ROOT / "docs" / "writing-a-backend.md").read_text(encoding="utf-8")
    files = saved(guide)
    assert files.keys() == {"shelf.py", "pyproject.toml", "settings.toml", "test_shelf.py"}
    for name, content in files.items():
        (tmp_path / name).write_text(content, encoding="utf-8")
    installed = tmp_path / "installed"
    python = Path(sys.executable)

    run(python, "-m", "build", "--no-isolation", "--wheel", tmp_path)
    (wheel,) = (tmp_path / "dist").glob("layercache_shelf-*.whl")
    run(python, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", installed, wheel)
    monkeypatch.setenv("PYTHONPATH", str(installed))

    for command, expected in commands(guide):
        words = command.replace("layercache ", f"{python.parent / 'layercache'} ")
        assert is_shown(expected, run("bash", "-c", words, cwd=tmp_path))
    assert "passed" in run(python, "-m", "pytest", "-p", "no:valkey", "-p", "no:schemathesis", cwd=tmp_path)


def _pins(*names: str) -> list[str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line.split()[0] for line in lines if "==" in line and not line.startswith(("#", " "))]
    return [pin for pin in pins if pin.split("==")[0] in names]


def test_the_pins_name_no_index_and_every_pin_has_hashes() -> None:
    text = (ROOT / "constraints.txt").read_text(encoding="utf-8")

    assert "http" not in text.replace("httpx", "").replace("httpcore", "").replace("http-", "")
    assert "index" not in text
    blocks = [block for block in text.split("\n") if "==" in block and not block.lstrip().startswith("#")]
    assert blocks
    assert all(block.rstrip().endswith("\\") for block in blocks), "a pin without hashes"
