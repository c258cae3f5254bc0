"""Rows from the hub: a fake one serves the real client."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from source_fixtures import AUTO, COMMIT, ROOT, fault, fill_cache, make, write

from bench.data import hub, sources
from bench.data.rows import read

pytest_plugins = ("source_fixtures",)
pytestmark = pytest.mark.usefixtures("alone")


# ---- the hub


def test_the_hub_downloads_once_and_serves_offline(online, monkeypatch):
    located = sources.locate("a", make(), "hub", AUTO)
    assert [p.name for p in located.files["train"]] == [f"train-0000{i}-of-00002.parquet" for i in (0, 1)]
    rows = read("a", make(), located)
    assert [f["text"] for f in rows.train.fields] == ["a", "b", "c", "d"]
    assert rows.train.index == [0, 1, 2, 3]
    fetched = {line.rpartition("/")[2] for line in online.log if line.startswith("GET /datasets")}
    assert fetched == {*(f"train-0000{i}-of-00002.parquet" for i in (0, 1)), "validation-00000-of-00001.parquet"}
    online.log.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert sources.locate("a", make(), "hub", AUTO) == located
    assert online.log == []


def test_the_hub_without_config_reads_top_level_and_data(online):
    task = make(hub="org/set", revision=COMMIT)
    rows = read("a", task, sources.locate("a", task, "hub", AUTO))
    assert [f["text"] for f in rows.train.fields] == ["g", "h"]
    assert [f["text"] for f in rows.test.fields] == ["i", "j"]


def test_fault_when_offline_and_not_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fault(sources.locate, "a", make(), "hub", AUTO) == (
        f"task 'a': org/set at bcdcba79 is not in the cache {tmp_path / 'hf' / 'hub'} and HF_HUB_OFFLINE forbids "
        "fetching it; allowed: unset it, or data.source=mirror or sample"
    )


def test_fault_when_the_hub_lacks_the_split(online):
    task = make(test="test", hub="org/set", config="one", revision=COMMIT)
    text = fault(sources.locate, "a", task, "hub", AUTO)
    assert text.startswith(
        "task 'a': org/set at bcdcba79 lacks one/test-*.parquet; parquet files there: data/train-000"
    )
    assert "one/validation-00000-of-00001.parquet" in text


@pytest.mark.parametrize(
    ("repo", "commit", "kind"),
    [("org/none", COMMIT, "RepositoryNotFoundError"), ("org/set", "0" * 40, "RevisionNotFoundError")],
)
def test_fault_when_the_hub_has_no_such_set(online, repo, commit, kind):
    text = fault(sources.locate, "a", make(hub=repo, config="one", revision=commit), "hub", AUTO)
    assert text.startswith(f"task 'a': cannot fetch {repo} at {commit[:8]} from {online.url}: {kind}: ")


def test_fault_when_nothing_answers(tmp_path):
    fill_cache(tmp_path, train=("a", "b"))  # half of it does not help
    assert fault(sources.locate, "a", make(), "hub", AUTO) == (
        f"task 'a': org/set at bcdcba79 is not in the cache {tmp_path / 'hf' / 'hub'} and {os.environ['HF_ENDPOINT']} "
        "does not answer; allowed: data.source=mirror or sample, or HF_ENDPOINT"
    )


def test_fault_when_the_hub_goes_away_half_way(online, tmp_path, monkeypatch):
    """The client then returns a partial snapshot without a word, and cannot be asked what else there is."""
    import huggingface_hub

    snapshot = fill_cache(tmp_path, train=("a", "b"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
    monkeypatch.setattr(
        huggingface_hub.HfApi, "list_repo_files", lambda *_, **__: (_ for _ in ()).throw(OSError("gone"))
    )
    assert fault(sources.locate, "a", make(), "hub", AUTO) == (
        f"task 'a': org/set at bcdcba79 is only partly in the cache {tmp_path / 'hf' / 'hub'}, and {online.url} "
        "cannot be asked for the rest: OSError"
    )


def test_a_missing_shard_is_not_cached(online, tmp_path):
    located = sources.locate("a", make(), "hub", AUTO)
    assert hub.cached(make().data, ["train"]) is not None
    located.files["train"][1].unlink()
    assert hub.cached(make().data, ["train"]) is None
    assert hub.cached(make().data, ["validation"]) is not None


def test_shards_sort_by_number(tmp_path):
    for i in (0, 2, 10):
        write(tmp_path / f"train-{i}.parquet", "a")
    assert [p.name for p in hub.find(tmp_path, None, ["train"])["train"]] == [f"train-{i}.parquet" for i in (0, 2, 10)]


@pytest.mark.parametrize(
    ("env", "folder"),
    [
        ({"HF_HUB_CACHE": "/c"}, "/c"),
        ({"HUGGINGFACE_HUB_CACHE": "/c"}, "/c"),
        ({"HF_HOME": "/h"}, "/h/hub"),
        ({"HF_HOME": "", "XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"HF_HOME": "", "XDG_CACHE_HOME": "", "HOME": "/home/me"}, "/home/me/.cache/huggingface/hub"),
    ],
)
def test_the_cache_is_where_huggingface_hub_has_it(monkeypatch, env, folder):
    for name, value in env.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    assert str(hub.cache_folder()) == folder
    got = subprocess.run(
        [sys.executable, "-c", "from huggingface_hub import constants; print(constants.HF_HUB_CACHE)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert got.stdout.strip() == folder


def test_the_import_stays_light():
    code = (
        "import sys, bench.data.sources, bench.data.rows, bench.data.prompts;"
        "heavy = {'torch', 'transformers', 'datasets', 'pandas', 'pyarrow', 'numpy', 'huggingface_hub'};"
        "print(sorted(heavy & set(sys.modules)))"
    )
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert got.stdout.strip() == "[]"


def test_the_hub_in_a_fresh_process(online, tmp_path):
    """As a user meets it: the environment is set before anything is imported."""
    code = (
        "import test_data_sources as t; from bench.data import sources;"
        "chosen = sources.choose_source({'a': t.make()}, t.AUTO);"
        "print(chosen, len(t.read('a', t.make(), sources.locate('a', t.make(), chosen, t.AUTO)).train))"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    for offline in ("0", "1"):
        env["HF_HUB_OFFLINE"] = offline
        got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
        assert got.stdout.strip() == "hub 4", got.stderr
    shutil.rmtree(tmp_path / "hf")
    got = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert got.stdout.strip() == "sample 128", got.stderr
