"""A user's own task file of lm-eval is data: whatever would run code is refused in words, and did not run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from harness_runs import needs_lm_eval, rows_of, task_of
from jinja2.exceptions import SecurityError, UndefinedError

from bench.config.schema import Task
from bench.config.settings import Settings
from bench.data import harness, harness_files
from bench.data.rows import read
from bench.data.sources import locate
from bench.errors import UserFault

pytestmark = needs_lm_eval
TASK = """
task: asked
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/rows.jsonl}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{text}"
doc_to_target: right
doc_to_choice: ["no", "yes"]
metric_list: [{{metric: {metric}}}]
"""
RAN = "import pathlib; pathlib.Path(__file__).with_name('ran').touch()\ndef one(*given): return given[0]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Rows, and a Python file that tells when it is run."""
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    harness._exported.cache_clear()
    place = tmp_path / "own"
    place.mkdir()
    rows = [{"body": f"Is {number} even?", "right": 1 - number % 2} for number in range(12)]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "code.py").write_text(RAN)
    return place


def written(folder: Path, more: str = "", text: str = "{{body}}", metric: str = "acc", name: str = "asked") -> Path:
    """A task's file with lines of its own at the end."""
    path = folder / f"{name}.yaml"
    path.write_text(TASK.format(folder=folder, text=text, metric=metric) + more)
    return path


def test_the_task_itself_is_fine(folder: Path) -> None:
    written(folder)
    rows = rows_of("asked", task_of(folder, "asked.yaml"))
    assert len(rows.test) == 12 and rows.test.fields[0]["question"] == "Is 0 even?"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            "process_docs: !function code.one\n",
            "names Python code (process_docs: !function code.one), which may stand in the folder of adapters_path only; allo",
        ),
        ("class: !function code.one\n", "names Python code (class: !function code.one)"),
        ("metadata: {deep: [1, {er: !function os.system}]}\n", "names Python code (er: !function os.system)"),
        ("metadata: {? !function code.one : 1}\n", "names Python code (: !function code.one)"),
        ("metadata: !!python/object/apply:os.system [ls]\n", "python/object/apply:os.system)"),
        ("include: more\n", "more names Python code (doc_to_text: !function code.one)"),
        ("include: [plain, more]\n", "more names Python code"),
        ("metadata: {x: *nobody}\n", "cannot be read as YAML: found undefined alias"),
    ],
)
@pytest.mark.parametrize("whole", [False, True], ids=["file", "folder"])
def test_code_is_refused_before_it_runs(folder: Path, more: str, says: str, whole: bool) -> None:
    """A file, and a folder that holds it; what it includes too, whatever that is called."""
    written(folder, more)
    (folder / "plain").write_text("tag: none\n")
    (folder / "more").write_text("doc_to_text: !function code.one\n")
    with pytest.raises(UserFault) as caught:
        task_of(folder, "." if whole else "asked.yaml")
    assert says in str(caught.value) and "task '" in str(caught.value) and "\n" not in str(caught.value)
    assert not (folder / "ran").exists()


def test_pickles_are_not_read(folder: Path) -> None:
    path = written(folder)
    path.write_text(path.read_text().replace("dataset_path: json", "dataset_path: pandas"))
    with pytest.raises(UserFault, match=r"dataset_path: pandas unpickles its files, which runs code; allowed: parquet"):
        task_of(folder, "asked.yaml")


@pytest.mark.parametrize("reach", ["{{body.__class__}}", "{{''.__class__.__mro__[1].__subclasses__()}}"])
def test_a_template_reaches_no_attributes(folder: Path, reach: str) -> None:
    written(folder, text=reach)
    with pytest.raises(UserFault, match="a template of it wants what no template may have: access to attribute '__"):
        task_of(folder, "asked.yaml")


def test_a_template_asks_plain_values_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What templates are written with goes on; a value with methods of its own is not called, and lists stay as they
    are."""
    import lm_eval.utils

    class Image:
        def save(self, place: str) -> str:
            raise AssertionError(place)

    for module in ("evaluate", "lm_eval.utils"):
        monkeypatch.setitem(sys.modules, module, sys.modules.get(module))
    monkeypatch.setattr(lm_eval.utils, "env", lm_eval.utils.env)
    harness_files.confine()
    row = {"body": " A b ", "list": [1, 2], "deep": {"x": {"y": "z"}}, "image": Image()}
    for text, rendered in (
        ("{{body.strip().lower()}}", "a b"),
        ("{{deep.x.y}}{{deep['x'].get('y')}}{% for n in list %}{{loop.index}}{{n}}{% endfor %}", "zz1122"),
        (
            "{{list|map('string')|join(',')}}{{body|regex_replace('A', 'c')}}{% set ns = namespace(a=1) %}{{ns.a}}",
            "1,2 c b 1",
        ),
        ("{{'{:>3}'.format(list[0])}}{{body.split()|last}}", "  1b"),
    ):
        assert lm_eval.utils.apply_template(text, row) == rendered
    for text in (
        "{{image.save('x')}}",
        "{{list.append(3)}}",
        "{{'{0.__class__}'.format(image)}}",
        "{{image|attr('save')}}{{image['save']()}}",
    ):
        with pytest.raises((SecurityError, UndefinedError)):
            lm_eval.utils.apply_template(text, row)
    assert row["list"] == [1, 2]


@pytest.mark.parametrize(("datasets", "fine"), [("3.6.0", False), ("4.0.0", True), ("5.2.0", True)])
def test_data_sets_with_scripts_need_a_library_that_runs_them(
    monkeypatch: pytest.MonkeyPatch, datasets: str, fine: bool
) -> None:
    monkeypatch.setattr(harness.importlib.metadata, "version", {"lm_eval": "0.4.13", "datasets": datasets}.get)
    if fine:
        assert harness.version() == "0.4.13"
        return
    with pytest.raises(UserFault, match=r"lm-eval reads by datasets 3.6.0, which runs scripts .*; allowed: 4 or newer"):
        harness.version()


def test_a_metric_that_lm_eval_has_not_is_not_fetched(folder: Path) -> None:
    """`evaluate` would run the file, or fetch one of that name. What lm-eval makes of a metric it has not is its own."""
    written(folder, metric=str(folder / "code.py"))
    try:
        known = task_of(folder, "asked.yaml")
    except UserFault as fault:
        assert "code.py" in str(fault) or "metric" in str(fault)
    else:
        assert known.harness is not None and known.harness.measures == []
    assert not (folder / "ran").exists()


def test_files_of_lm_eval_keep_their_functions(folder: Path) -> None:
    """Included by a file of one's own; and files that include each other come once."""
    import lm_eval

    theirs = Path(lm_eval.__file__).resolve().parent / "tasks" / "hellaswag" / "hellaswag.yaml"
    assert "!function" in theirs.read_text()
    path = written(folder, f"include: {theirs}\n")
    assert harness_files.files(path, None) == [path.resolve(), theirs]
    path.write_text("include: asked.yaml\nloop: &loop [*loop]\n")
    assert harness_files.files(path, None) == [path.resolve()]


EVEN = "def some(docs): return docs.filter(lambda doc: doc['right'] == {right})\n"


def made(folder: Path, adapters: Path | None) -> list[int]:
    """Labels of the task's rows in a run that names this folder of its own code."""
    settings = Settings(adapters_path=None if adapters is None else str(adapters)).data
    task = Task.model_validate({"data": {"lm_eval": str(folder / "asked.yaml")}})
    harness._exported.cache_clear()
    known = harness.told("asked", task, settings)
    return read("asked", known, locate("asked", known, "path", settings)).test.labels


def test_functions_of_the_folder_of_adapters_path_make_rows(folder: Path) -> None:
    """Of that folder alone; anew when they change; and a run that does not name the folder does not find their rows."""
    written(folder, "process_docs: !function _own.some\n")
    (folder / "_own.py").write_text(EVEN.format(right=1))
    assert made(folder, folder) == [1] * 6
    (folder / "_own.py").write_text("# changed\n" + EVEN.format(right=0))
    assert made(folder, folder) == [0] * 6
    (folder / "elsewhere").mkdir()
    for other in (None, folder / "elsewhere"):
        with pytest.raises(UserFault, match=r"process_docs: !function _own.some\), which may stand in the folder of"):
            made(folder, other)
    written(folder, "process_docs: !function os.getcwd\n")
    with pytest.raises(UserFault, match=r"process_docs: !function os.getcwd\), which may"):
        made(folder, folder)
