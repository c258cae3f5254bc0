"""Where rows come from: the choice of one source, each source's files, and every fault's words."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from fake_data_hub import serve
from source_fixtures import AUTO, COMMIT, ROOT, fault, fill_cache, make, write

from bench.config.settings import DataSettings
from bench.data import hub, sources
from bench.data.rows import read

pytest_plugins = ("source_fixtures",)
pytestmark = pytest.mark.usefixtures("alone")


# ---- which source


def test_every_task_with_its_own_folder_is_its_own_source():
    assert sources.choose_source({"a": make(path="x")}, AUTO) == "path"
    assert sources.choose_source({"a": make(path="x")}, DataSettings(source="mirror")) == "path"


def test_auto_takes_a_named_mirror(tmp_path, monkeypatch):
    assert sources.choose_source({"a": make()}, DataSettings(mirror=str(tmp_path))) == "mirror"
    monkeypatch.setenv("BENCH_MIRROR", str(tmp_path))
    assert sources.choose_source({"a": make(), "b": make(path="x")}, AUTO) == "mirror"


def test_an_empty_bench_mirror_names_none(monkeypatch):
    monkeypatch.setenv("BENCH_MIRROR", "")
    assert sources.choose_source({"a": make()}, AUTO) == "sample"


def test_data_mirror_comes_before_bench_mirror(tmp_path, monkeypatch):
    monkeypatch.setenv("BENCH_MIRROR", str(tmp_path / "other"))
    assert sources.mirror_folder(DataSettings(mirror=str(tmp_path))) == tmp_path
    assert sources.mirror_folder(AUTO) == tmp_path / "other"


def test_auto_falls_to_the_sample_where_nothing_answers():
    assert sources.choose_source({"a": make()}, AUTO) == "sample"


def test_auto_takes_a_hub_that_answers(online):
    assert sources.choose_source({"a": make()}, AUTO) == "hub"
    assert online.log == []  # connected, asked for nothing


def test_auto_takes_a_cached_hub_without_connecting(tmp_path, monkeypatch):
    fill_cache(tmp_path, train=("a", "b"), validation=("c", "d"))
    monkeypatch.setattr(hub, "_connects", lambda *_: pytest.fail("connected"))
    assert sources.choose_source({"a": make()}, AUTO) == "hub"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert sources.choose_source({"a": make()}, AUTO) == "hub"


def test_auto_wants_every_split_cached(tmp_path):
    fill_cache(tmp_path, train=("a", "b"))
    assert sources.choose_source({"a": make()}, AUTO) == "sample"


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
@pytest.mark.parametrize("value", ["1", "true", "YES", "on"])
def test_offline_never_connects(online, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(hub, "_connects", lambda *_: pytest.fail("connected"))
    assert sources.choose_source({"a": make()}, AUTO) == "sample"


def test_the_address_is_asked_once(monkeypatch):
    asked = []
    monkeypatch.setattr(hub, "_connects", lambda *a: asked.append(a) and False)
    for _ in range(3):
        assert sources.choose_source({"a": make(), "b": make()}, AUTO) == "sample"
    assert len(asked) == 1


def test_a_hub_that_hangs_costs_the_timeout_once(monkeypatch):
    monkeypatch.setattr(hub, "CONNECT_SECONDS", 0.2)
    monkeypatch.setattr(hub, "_connects", lambda *_: time.sleep(1.5) or True)
    start = time.monotonic()
    assert sources.choose_source({"a": make()}, AUTO) == "sample"
    assert sources.choose_source({"a": make()}, AUTO) == "sample"
    assert time.monotonic() - start < 1.0


@pytest.mark.parametrize(
    "address", ["", "http://", "http://127.0.0.1:99999", "http://[", "http://no-such-host.invalid"]
)
def test_a_malformed_address_is_not_reachable(address):
    assert not hub._connects(address, 0.5)


def test_a_proxy_is_asked_to_tunnel(monkeypatch):
    """The fake hub answers 501 to CONNECT, as a proxy does that must not reach the hub."""
    with serve({}) as refusing:
        monkeypatch.setenv("https_proxy", refusing.url.replace("http://", "http://me:secret@"))
        assert not hub._connects("https://hub.invalid", 1.0)
        monkeypatch.setenv("http_proxy", refusing.url)
        assert hub._connects("http://hub.invalid", 1.0)
        monkeypatch.setenv("no_proxy", "hub.invalid")
        assert not hub._connects("http://hub.invalid", 1.0)


def test_fault_when_nothing_is_left(monkeypatch, tmp_path):
    tasks = {"a": make(), "b": make(hub="org/set", config="one", revision=COMMIT)}
    text = fault(sources.choose_source, tasks, AUTO)
    assert text == (
        f"no source serves every task; tried: mirror (not named), hub ({os.environ['HF_ENDPOINT']} does not answer; "
        f"not in the cache {tmp_path / 'hf' / 'hub'}: task 'a', 'b'), sample (none for task 'b'); "
        "allowed: data.mirror=DIR or BENCH_MIRROR, a reachable or cached hub, or a task's own data.path"
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "hub (offline by HF_HUB_OFFLINE; not in the cache" in fault(sources.choose_source, tasks, AUTO)


def test_fault_when_no_one_source_can_serve_a_mixture(online):
    tasks = {"a": make(sample="sst2.jsonl"), "b": make(hub="org/set", revision=COMMIT)}
    text = fault(sources.choose_source, tasks, AUTO)
    assert "hub (not named by task 'a'), sample (none for task 'b')" in text


@pytest.mark.parametrize(
    ("source", "task", "words"),
    [
        ("sample", make(hub="org/set"), "data.source=sample needs data.sample, which task 'a' does not have; allowed: "
         "add it, leave the task out, or data.source=mirror|hub"),
        ("hub", make(sample="x.jsonl"), "data.source=hub needs data.hub, which task 'a' does not have; allowed: "
         "add it, leave the task out, or data.source=sample"),
        ("mirror", make(sample="x.jsonl"), "data.source=mirror needs data.hub, which task 'a' does not have; allowed: "
         "add it, leave the task out, or data.source=sample"),
        ("mirror", make(), "data.source=mirror, but no mirror is named; allowed: data.mirror=DIR or BENCH_MIRROR=DIR"),
    ],
)  # fmt: skip
def test_fault_when_an_explicit_source_cannot_serve(source, task, words):
    assert fault(sources.choose_source, {"a": task}, DataSettings(source=source)) == words


def test_fault_when_the_mirror_is_not_a_folder(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    text = f"the mirror '{gone}' named by data.mirror is not a folder; allowed: one with <org>/<name>/<config>/"
    assert fault(sources.choose_source, {"a": make()}, DataSettings(mirror=str(gone))) == text
    monkeypatch.setenv("BENCH_MIRROR", str(gone))
    assert "named by BENCH_MIRROR" in fault(sources.choose_source, {"a": make()}, AUTO)
    assert "named by BENCH_MIRROR" in fault(sources.locate, "a", make(), "mirror", AUTO)


@pytest.mark.parametrize(("revision", "got"), [(None, "none"), ("main", "'main'"), ("bcdcba7", "'bcdcba7'")])
def test_fault_when_the_hub_is_used_without_a_commit(online, revision, got):
    task = make(hub="org/set", config="one", revision=revision, sample="sst2.jsonl")
    words = f"task 'a': reading org/set from the hub needs data.revision, got {got}; allowed: a commit (40 hex digits)"
    assert fault(sources.choose_source, {"a": task}, DataSettings(source="hub")) == words
    assert fault(sources.choose_source, {"a": task}, AUTO) == words
    assert fault(sources.locate, "a", task, "hub", AUTO) == words


# ---- the mirror


def test_mirror_files_and_fingerprint(tmp_path):
    train = write(tmp_path / "org/set/one/train.parquet", "a", "b")
    test = write(tmp_path / "org/set/one/validation.parquet", "c", "d")
    settings = DataSettings(mirror=str(tmp_path))
    located = sources.locate("a", make(), "mirror", settings)
    assert located.source == "mirror"
    assert located.files == {"train": (train,), "validation": (test,)}
    assert located.fingerprint.startswith("sha256:") and len(located.fingerprint) == 71
    write(test, "c", "e")
    changed = sources.locate("a", make(), "mirror", settings)
    assert changed.fingerprint != located.fingerprint
    swapped = {"train": located.files["validation"], "validation": located.files["train"]}
    assert sources.fingerprint(swapped) != changed.fingerprint
    backwards = dict(reversed(changed.files.items()))
    assert sources.fingerprint(backwards) == changed.fingerprint


def test_fingerprint_tells_a_shard_from_a_whole(tmp_path):
    one, two, both = tmp_path / "1", tmp_path / "2", tmp_path / "12"
    one.write_bytes(b"ab"), two.write_bytes(b"cd"), both.write_bytes(b"abcd")
    assert sources.fingerprint({"t": (one, two)}) != sources.fingerprint({"t": (both,)})


def test_fingerprint_of_a_file_that_vanished(tmp_path):
    gone = tmp_path / "gone.parquet"
    assert fault(sources.fingerprint, {"t": (gone,)}) == f"cannot read {gone}: No such file or directory"


def test_mirror_without_config_reads_default(tmp_path):
    for split in ("train", "validation"):
        write(tmp_path / f"org/set/default/{split}.parquet", "a", "b")
    task = make(hub="org/set")
    assert sources.locate("a", task, "mirror", DataSettings(mirror=str(tmp_path))).files["train"][0].is_file()


def test_fault_when_the_mirror_lacks_a_file(tmp_path):
    write(tmp_path / "org/set/one/train.parquet", "a")
    write(tmp_path / "org/set/one/validation_matched.parquet", "a")
    settings = DataSettings(mirror=str(tmp_path))
    missing = tmp_path / "org/set/one/validation.parquet"
    assert fault(sources.locate, "a", make(), "mirror", settings) == (
        f"task 'a': the mirror lacks {missing}; splits there: train, validation_matched; "
        "did you mean 'validation_matched'?"
    )
    task = make(hub="org/set", config="onne")
    assert fault(sources.locate, "a", task, "mirror", settings) == (
        f"task 'a': the mirror lacks {tmp_path / 'org/set/onne/train.parquet'}; {tmp_path / 'org/set'} holds: one; "
        "did you mean 'one'?"
    )


def real_mirror() -> Path:
    named = os.environ.get("BENCH_MIRROR")
    return Path(named) if named else ROOT.parent / "shared" / "hub"


MIRROR = real_mirror()  # taken before the fixture hides the environment
PAIR = ("sentence1", "sentence2")


@pytest.mark.skipif(
    not (MIRROR / "nyu-mll/glue").is_dir(), reason="no mirror: set BENCH_MIRROR to one with nyu-mll/glue"
)
@pytest.mark.parametrize(
    ("config", "columns", "train", "test"),
    [
        ("sst2", ("sentence",), 67349, 872),
        ("cola", ("sentence",), 8551, 1043),
        ("mrpc", PAIR, 4076, 1725),
        ("rte", PAIR, 2490, 277),
    ],
)
def test_the_real_mirror(config, columns, train, test):
    task = make(hub="nyu-mll/glue", config=config)
    task = task.model_copy(update={"columns": {**{c: c for c in columns}, "label": "label"}, "limit": 100})
    located = sources.locate(config, task, "mirror", DataSettings(mirror=str(MIRROR)))
    rows = read(config, task, located)
    assert (len(rows.train), len(rows.test)) == (train, 100)
    assert rows.train.index == list(range(train))
    assert max(rows.test.index) < test and rows.test.index == sorted(rows.test.index)


# ---- the sample


def test_the_bundled_sample():
    rows = read("a", make(), sources.locate("a", make(), "sample", AUTO))
    assert rows.located.source == "sample"
    assert rows.located.files["train"] == rows.located.files["validation"]
    assert (len(rows.train), len(rows.test)) == (128, 120)
    lines = rows.located.files["train"][0].read_text(encoding="utf-8").splitlines()
    assert all(
        json.loads(lines[i])["sentence"] == f["text"] for i, f in zip(rows.test.index, rows.test.fields, strict=True)
    )


def test_a_wheel_brings_its_own_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(sources.bench, "__file__", str(tmp_path / "bench" / "__init__.py"))
    assert sources.samples_folder() == tmp_path / "suites" / "samples"
    (tmp_path / "bench" / "_suites" / "samples").mkdir(parents=True)
    assert sources.samples_folder() == tmp_path / "bench" / "_suites" / "samples"


def test_fault_when_there_is_no_such_sample():
    text = fault(sources.locate, "a", make(sample="sst3.jsonl"), "sample", AUTO)
    folder = sources.samples_folder()
    assert text.startswith(f"task 'a': no bundled sample {folder / 'sst3.jsonl'}; samples there: cola.jsonl")
    assert text.endswith("did you mean 'sst2.jsonl'?")


def test_fault_when_the_sample_lacks_the_split():
    task = make(test="validatoin", sample="sst2.jsonl")
    path = sources.samples_folder() / "sst2.jsonl"
    assert fault(read, "a", task, sources.locate("a", task, "sample", AUTO)) == (
        f"{path} has no split 'validatoin'; splits there: dev, train, validation; did you mean 'validation'?"
    )


# ---- the user's own folder


def test_a_folder_of_mixed_formats(tmp_path, monkeypatch):
    (tmp_path / "train.csv").write_text("sentence,label\nfine,good\n", encoding="utf-8")
    (tmp_path / "test.jsonl").write_text('{"sentence": "poor", "label": 0}\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path.parent)
    task = make(test="test", path=tmp_path.name)  # relative to the current folder
    located = sources.locate("a", task, "mirror", AUTO)  # whatever the run's source is
    assert located.source == "path"
    rows = read("a", task, located)
    assert (rows.train.labels, rows.test.labels) == ([1], [0])


def test_faults_of_a_folder(tmp_path):
    gone = tmp_path / "gone"
    assert fault(sources.locate, "a", make(path=str(gone)), "path", AUTO) == (
        f"task 'a': data.path '{gone}' is not a folder; allowed: a folder with <split>.parquet|.jsonl|.csv"
    )
    write(tmp_path / "train.parquet", "a")
    assert fault(sources.locate, "a", make(test="trian", path=str(tmp_path)), "path", AUTO) == (
        f"task 'a': no trian.parquet|.jsonl|.csv in {tmp_path}; splits there: train; did you mean 'train'?"
    )
    (tmp_path / "train.csv").touch()
    assert fault(sources.locate, "a", make(path=str(tmp_path)), "path", AUTO) == (
        f"task 'a': {tmp_path} holds split 'train' more than once (train.parquet, train.csv); allowed: one of them"
    )
