"""Whatever a user hands us, as tokens, suite files or templates, is taken or refused in words: nothing else comes out.

`BENCH_FUZZ=50` tries 50 times as many examples, new ones on every run (see `fuzzing`).
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import yaml
from fuzzing import ANY, TEXTS, changed, tries
from hypothesis import example, given
from hypothesis import strategies as st

from bench import registry
from bench.config import Request, Template, load
from bench.config.load import suite_file
from bench.data.prompts import fill
from bench.errors import UserFault

STRATEGIES = registry.load()


def taken(tokens: list[str]) -> Request | None:
    """What the tokens ask for, with every strategy's options; None where they are refused, in one line."""
    try:
        request = load(tokens)
        for entries in (
            request.suite.strategies,
            *(t.strategies for t in request.suite.tasks.values() if t.strategies),
        ):
            for name, raw in entries.items():
                registry.variant(name, raw or {}, STRATEGIES)
        return request
    except UserFault as fault:
        assert str(fault) and "\n" not in str(fault)
        return None


# ---- the command line

KEYS = st.sampled_from(
    ["model", "seeds", "tasks", "strategies", "budget", "budget.labels", "budget.train_examples", "budget.curve", "gpu", "suite",
     "tasks.sst2", "tasks.sst2.limit", "tasks.sst2.labels", "tasks.sst2.templates", "tasks.sst2.columns.text", "tasks.sst2.data",
     "strategies.lora", "strategies.lora.r", "strategies.lora.base", "strategies.lora.target_modules", "strategies.x.base",
     "probes", "probes.formats", "probes.contamination.plant", "run.name", "run", "data", "data.source", "results_dir",
     "trackers", "micro_batch", "threads", "name", "", ".", "a..b", "tasks.", "tasks[0]", "tasks.sst2.templates[0].pattern", "-x"]
) | TEXTS  # fmt: skip


@st.composite
def token(draw: st.DrawFn) -> str:
    """`key=value`, with values as a shell would pass them; sometimes any text at all."""
    value = draw(ANY)
    said = draw(st.sampled_from([str, json.dumps]))(value)
    return draw(st.sampled_from([f"{draw(KEYS)}={said}", f"{draw(KEYS)}={draw(TEXTS)}", draw(TEXTS)]))


@tries(150)
@example(["tasks.sst2=${model}", "tasks.sst2.limit=3"])
@example(["a" * 3000 + ".b" * 400 + "=1"])
@given(st.lists(token(), max_size=3))
def test_overrides(tokens: list[str]) -> None:
    taken(["suite=smoke", *tokens])


# ---- suite files

SUITES = {name: yaml.safe_load(suite_file(name).read_text(encoding="utf-8")) for name in ("smoke", "glue-small")}
JUDGED = ("generation-small", "preference-small", "extraction-small")
SUITES |= {name: yaml.safe_load(suite_file(name).read_text(encoding="utf-8")) for name in JUDGED}


def read_as_file(content: bytes, *tokens: str) -> Request | None:
    """A suite file with this content, read."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mine.yaml"
        path.write_bytes(content)
        return taken([f"suite={path}", *tokens])


@st.composite
def suites(draw: st.DrawFn) -> bytes:
    """A suite of ours, with something else at some places."""
    tree = changed(draw, SUITES[draw(st.sampled_from(sorted(SUITES)))], 3)
    return yaml.safe_dump(tree, allow_unicode=True).encode("utf-8", "surrogatepass")


def as_yaml(**change: object) -> bytes:
    """The smoke suite with some keys changed."""
    return yaml.safe_dump({**SUITES["smoke"], **change}).encode()


def own(entries: object) -> bytes:
    """The smoke suite whose task lists strategies of its own."""
    tasks = {name: {**task, "strategies": entries} for name, task in SUITES["smoke"]["tasks"].items()}
    return as_yaml(tasks=tasks)


@tries(60)
@example(as_yaml(tasks=True), [])
@example(as_yaml(tasks=["sst2"]), ["tasks=sst2"])
@example(as_yaml(strategies="lora"), ["strategies=lora"])
@example(as_yaml(strategies=3), ["strategies.lora.r=2"])
@example(own(["lora"]), ["strategies.lora.r=2"])
@example(own({"lora": 3}), ["strategies.lora.r=2"])
@example(own({"lora": {"r": 2}}), ["tasks.sst2.strategies=3"])
@given(suites(), st.lists(token(), max_size=1))
def test_suites_with_something_wrong(content: bytes, tokens: list[str]) -> None:
    read_as_file(content, *tokens)


@tries(60)
@example(b"a: &a [*a]\n")
@example(b"a: &a {b: *a}\n")
@example(b"<<: {name: x}\n")
@example(b"? [1, 2]\n: 3\n")
@example(b"- " * 3000)
@example(b"[" * 3000)
@example(b"name: !!binary aGVsbG8=\n")
@example(b"name: 2026-11-23\nmodel: x\n")
@example(b"%YAML 9.9\n---\nname: x\n")
@example(b"---\nname: x\n---\nname: y\n")
@example(b"name: !!set {a, b}\n")
@example(b"name: !!timestamp 9999-99-99\n")
@example(b"name: 190:20:30\n1: 2\n1.5: 2\ntrue: 3\nnull: 4\n")
@given(st.binary(max_size=40) | st.text(alphabet="abn:- \n\t{}[]&*!|>'\"#%@,?<~0.", max_size=60).map(str.encode))
def test_files_that_are_no_suites(content: bytes) -> None:
    read_as_file(content)


@pytest.mark.parametrize(
    "tag", ["!!python/object/apply:os.system ['touch ran']", "!!python/name:os.system", "!!python/module:os", "!function x.y",
            "!!python/object/new:os.system ['touch ran']", "!!python/tuple [1]", "!include x.yaml", "!env HF_TOKEN"]
)  # fmt: skip
def test_tags_build_nothing(tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_as_file(f"name: x\nmodel: {tag}\n".encode()) is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [4, 9, 40])
def test_aliases_do_not_multiply(number: int) -> None:
    """Nine of nine of nine ...: 40 lines stand for more entries than there are atoms."""
    lines = ["name: x", "a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 9)}]" for i in range(number)]
    assert read_as_file("\n".join(lines).encode()) is None


# ---- templates

PIECES = st.sampled_from(
    ["{text}", "{text.__class__}", "{text[0]}", "{text!r}", "{text:>9}", "{0}", "{}", "{{text}}", "{ text }", "{% for x in y %}",
     "{{ 7*7 }}", "${text}", "%(text)s", "{label}", "{__class__}", "{text", "text}", "\\", "\\1", "\n", "<|endoftext|>", "{#"]
) | st.text(max_size=5)  # fmt: skip


@tries(150)
@given(st.lists(PIECES, max_size=6).map("".join), TEXTS)
def test_templates_are_data(pattern: str, text: str) -> None:
    """Between places every letter stands as written, and what is put in is never looked at again."""
    template = Template(pattern=pattern)
    if template.places - {"text"}:
        with pytest.raises(UserFault, match="unknown field in a pattern"):
            fill(template, {"text": text})
        return
    assert fill(template, {"text": text}) == text.join(pattern.split("{text}"))
