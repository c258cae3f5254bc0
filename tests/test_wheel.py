"""The wheel holds engine, strategies, suites and templates, and no file of anybody else's package."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> list[str]:
    """Names inside a freshly built wheel. Built without isolation, so that nothing is downloaded."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def test_every_strategy_suite_sample_and_template_is_inside(wheel):
    for folder, inside, pattern in (
        ("adapters", "bench/_adapters", "*.py"),
        ("suites", "bench/_suites", "*.yaml"),
        ("suites/samples", "bench/_suites/samples", "*.jsonl"),
        ("bench/report/templates", "bench/report/templates", "*"),
    ):
        expected = {f"{inside}/{path.name}" for path in (ROOT / folder).glob(pattern) if path.is_file()}
        assert expected and expected <= set(wheel)


def test_adapterhub_is_left_alone(wheel):
    """AdapterHub's wheel owns the top-level folder `adapters`; ours has `bench` and its metadata only."""
    tops = {name.split("/")[0] for name in wheel}
    assert {top for top in tops if not top.startswith("adaptbench-")} == {"bench"}


def test_nothing_stray_is_inside(wheel):
    assert not [name for name in wheel if "__pycache__" in name or name.startswith(("results", "reports", "tests"))]


def test_the_wheel_works_from_any_folder(wheel, tmp_path):
    """Unpacked outside the checkout, the strategies and suites come from inside the package."""
    out = tmp_path / "dist"
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, capture_output=True, check=True)
    (path,) = out.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-m", "bench", "plan", "suite=smoke", "--json"],
        cwd=tmp_path / "site",
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    code = "import bench.places as p; print(p.bundled('adapters'), p.bundled('suites'))"
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path / "site", capture_output=True, text=True)
    assert found.stdout.split() == [str(tmp_path / "site/bench/_adapters"), str(tmp_path / "site/bench/_suites")]
