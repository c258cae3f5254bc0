"""Instruction tuning: what is trained on and what is held out, the loss of the response alone, and demonstrations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from cli_runs import tokens
from records_factory import Fake, write_run
from rich.console import Console
from test_held_out import SST2, examples_of, jobs, recorded
from test_instruction_data import chats, file_task
from test_report import words

from bench.budget import Meter
from bench.config import load
from bench.config.schema import Task, Template
from bench.data.rows import Rows
from bench.records import PlanFile, Status
from bench.report import render
from bench.run import execute
from bench.score.demonstrations import BETWEEN, Demonstrations
from bench.score.replies import STEP_BY_STEP, Told
from bench.store import probe_file, read_probe, write_record
from bench.strategy import Plan, TaskContext, Unsupported

pytestmark = pytest.mark.usefixtures("forked")

torch.set_num_threads(1)


def prepared(name: str, given: TaskContext, **more: Any) -> Plan:
    return tiny.STRATEGIES[name].prepare(tiny.base("tiny-llama"), given, tiny.options(name, **more))


def text_of(plan: Plan, number: int) -> tuple[str, str]:
    """Prompt and response of one training row, as text."""
    one, tokenizer = examples_of(plan).encoded[number], tiny.base("tiny-llama").tokenizer
    return tokenizer.decode(one.ids, skip_special_tokens=True), tokenizer.decode(one.answers[0])


def source(name: str, task: Task, rows: Rows, **more: Any) -> TaskContext:
    return replace(tiny.context("verbalizer", task=task, train=rows, sequence=200), name=name, **more)


def files() -> TaskContext:
    """An instruction file of three rows, one of them with an input."""
    asked = [("Name a colour.", "", "Red."), ("Add.", "1 and 2", "3."), ("Name a day.", "", "Monday.")]
    fields = [{"instruction": a, "input": b, "target": c} for a, b, c in asked]
    return source("file", file_task(), Rows(fields, [1] * 3, [0, 1, 2]))


def questions(labels: int = 4) -> TaskContext:
    """Questions with rationales."""
    return replace(tiny.context("verbalizer", labels, task=tiny.question_task(), sequence=200), name="questions")


def on(*sources: TaskContext) -> TaskContext:
    return replace(tiny.context("verbalizer", sequence=200), sources=sources)


# ---- the loss


def test_the_loss_is_the_mean_cross_entropy_of_the_response() -> None:
    """By hand: log-softmax of every logit of the unpadded row, picked where a token of the response is next."""
    plan = prepared("instruct", on(files()))
    encoded = examples_of(plan).encoded
    assert plan.collate is not None and plan.loss is not None and plan.module is not None
    plan.module.eval()
    got = plan.loss(plan.collate(encoded), torch.zeros(3, dtype=torch.int64))
    wanted = []
    for one in encoded:
        ids = [*one.ids, *one.answers[0]]
        with torch.no_grad():
            logp = plan.module(input_ids=torch.tensor([ids])).logits.float().log_softmax(-1)[0]
        of = [logp[place - 1, ids[place]].item() for place in range(len(one.ids), len(ids))]
        wanted.append(-sum(of) / len(of))
    assert got.item() == pytest.approx(sum(wanted) / 3, abs=1e-5)
    assert all(one.answers[0][-1] == tiny.base("tiny-llama").tokenizer.eos_token_id for one in encoded)


def test_an_input_chooses_the_template() -> None:
    plan = prepared("instruct", on(files()))
    assert [text_of(plan, n)[0] for n in range(3)] == [
        "Name a colour.\nResponse:", "Add.\nInput: 1 and 2\nResponse:", "Name a day.\nResponse:",
    ]  # fmt: skip
    assert text_of(plan, 1)[1].startswith(" 3.")
    [only] = [Template(pattern="{instruction}\n{input}\nNow:")]
    alone = prepared("instruct", on(replace(files(), formats=(only,))))
    assert text_of(alone, 0)[0] == "Name a colour.\nResponse:", "a format that does not fit gives way"
    assert text_of(alone, 1)[0] == "Add.\n1 and 2\nNow:"


def test_rationales_stand_before_the_answer() -> None:
    """Asked for in training as when the task is scored; without the option only the answer is learned."""
    row = questions().train.fields[0]
    asked, told = text_of(prepared("instruct", on(questions()), rationales=True), 0)
    assert asked == f"{row['text']}\nNumber:{STEP_BY_STEP}"
    assert told.startswith(f" {row['rationale']} The answer is {row['target']}.")
    asked, told = text_of(prepared("instruct", on(questions())), 0)
    assert asked.endswith("\nNumber:") and told.startswith(f" {row['target']}") and "answer is" not in told
    own = replace(questions(), name="own", sources=(files(), questions()))
    reasoning = prepared("instruct", own, rationales=True).answer
    assert isinstance(reasoning, Told) and reasoning.reasons
    with pytest.raises(Unsupported, match="no source holds any: choose one of kind generate with a column"):
        prepared("instruct", on(files()), rationales=True)


def test_answers_that_are_preferred_are_responses_too() -> None:
    pairs = replace(tiny.context("verbalizer", 4, task=tiny.pair_task(), sequence=200), name="pairs")
    fields, label = pairs.train.fields[0], pairs.train.labels[0]
    asked, told = text_of(prepared("instruct", on(pairs)), 0)
    assert asked == "A review:" and told.startswith(fields[("first", "second")[label]])


# ---- quality over quantity


def test_filter_and_choice_are_told_in_the_record(tmp_path: Path) -> None:
    """As many chosen rows as drawn ones, of the same candidates; the record holds which, and why not the others."""
    pair = ["tasks=sst2,alpaca", "budget.labels=48", "strategies=instructions_drawn,instructions_chosen",
            "strategies.instructions_drawn.n=6", "strategies.instructions_chosen.n=6"]  # fmt: skip
    drawn, chosen = (recorded(job) for job in jobs(tmp_path, *pair))
    assert drawn.outcome.status is chosen.outcome.status is Status.ok, chosen.outcome.reason
    [few], [best] = drawn.curated, chosen.curated
    assert few.candidates == best.candidates == 48 and len(few.kept) == len(best.kept) == 6
    assert set(few.kept) != set(best.kept) and few.left_out == []
    assert {one.rule for one in best.left_out} <= {"short response", "no full stop", "near a kept one"}
    assert best.left_out and not {one.row for one in best.left_out} & set(best.kept)
    assert f"{best.how}." in chosen.notes and "6 of them chosen by quality" in best.how
    assert chosen.used is not None and chosen.used.source_labels == 6


def test_nothing_to_choose_among_is_told() -> None:
    for more in ({"select": "chosen"}, {"sift": True}):
        with pytest.raises(Unsupported, match="no source holds any .*choose such a source, or use sift=false"):
            prepared("instruct", on(questions()), **more)
    with pytest.raises(Unsupported, match=r"file: n: got 2 rows to choose; allowed: 1 to 0.*: lower strategies"):
        prepared("instruct", on(files()), select="chosen", n=2)


def test_a_chat_is_a_source_too() -> None:
    fields = [{"instruction": "Say hello.", "target": "Hello."}]
    plan = prepared("instruct", on(source("chat", chats(), Rows(fields, [1], [0]))))
    asked, told = text_of(plan, 0)
    assert asked == "Say hello.\nResponse:" and told.startswith(" Hello.")


def test_without_a_label_of_any_source_it_says_so() -> None:
    with pytest.raises(Unsupported, match="no labelled row to train on: raise budget.labels"):
        prepared("instruct", on(replace(files(), train=Rows([], [], []))))


# ---- demonstrations


def test_training_prompts_hold_demonstrations_of_their_task() -> None:
    """k other rows of the same source with their answers, in the query's own format; all of them are counted as read."""
    plan = prepared("in_context_tuning", on(questions(5), files()), k=2)
    found = examples_of(plan)
    rows = questions(5).train
    told = {f"{f['text']}\nNumber: {f['target']}": i for f, i in zip(rows.fields, rows.index, strict=True)}
    for number in range(5):
        asked, answer = text_of(plan, number)
        *shown, query = asked.split(BETWEEN)
        assert len(shown) == 2 and query == f"{rows.fields[number]['text']}\nNumber:"
        assert [("questions", told[one]) for one in shown] == found.beside[number]
        assert found.items[number] not in found.beside[number] and answer.startswith(
            f" {rows.fields[number]['target']}"
        )
    last, _ = text_of(plan, 6)
    assert last.endswith("Add.\nInput: 1 and 2\nResponse:") and "Name a day.\nResponse: Monday.\n\n" in last


def test_it_is_asked_behind_demonstrations_of_the_scored_task() -> None:
    plan = prepared("in_context_tuning", on(questions()), k=2)
    assert plan.labels_used == 2 and isinstance(plan.answer, Demonstrations) and plan.answer.rows is not None
    assert len(plan.answer.rows) == 2 and set(plan.answer.rows.index) <= set(on().train.index)
    own = replace(questions(), name="own", sources=(files(),))
    asked = prepared("in_context_tuning", own, k=2).answer
    assert isinstance(asked, Told) and asked.shown is not None and len(asked.shown) == 2


def test_labels_shown_are_counted_on_both_sides(tmp_path: Path) -> None:
    """Four rows trained on show eight others at most: source labels count what was shown, too."""
    [job] = jobs(tmp_path, "tasks=sst2,cola", "strategies=in_context_tuning", "strategies.in_context_tuning.k=2",
                 "strategies.in_context_tuning.sources=all", "budget.train_examples=4")  # fmt: skip
    result = recorded(job)
    assert result.outcome.status is Status.ok, result.outcome.reason
    assert result.used is not None and result.used.labels == 2 and 4 < result.used.source_labels <= 12
    assert (Path(job.folder) / "adapted" / "demonstrations.json").is_file()


def test_too_few_rows_or_too_long_prompts_are_told() -> None:
    with pytest.raises(
        Unsupported, match="file has 3 rows, too few to show 4 before each: raise budget.labels or lower"
    ):
        prepared("in_context_tuning", on(questions(8), files()), k=4)
    with pytest.raises(Unsupported, match="k=40 demonstrations, but 12 labels: raise budget.labels or lower k"):
        prepared("in_context_tuning", on(questions()), k=40)
    long = replace(questions(12), train=longer(questions(12).train))
    with pytest.raises(Unsupported, match=r"model's context is 512: use fewer demonstrations \(strategies.<name>.k\)"):
        examples_of(prepared("in_context_tuning", on(long), k=10))


def longer(rows: Rows) -> Rows:
    """The rows with texts four times as long."""
    return replace(rows, fields=[{**fields, "text": " ".join([fields["text"]] * 4)} for fields in rows.fields])


# ---- planted, restored, told


def test_a_planted_cell_trains_on_the_scored_task_as_instructions() -> None:
    """The positive control of contamination checks: test items put as this strategy puts any task."""
    for name, more, shown in (("instruct", {}, 0), ("in_context_tuning", {"k": 2}, 2)):
        plan = prepared(name, on(questions()), **more)
        assert plan.reread is not None
        found = plan.reread(tiny.rows().test)
        assert found.items == [(SST2, row) for row in tiny.rows().test.index] and len(found.encoded) == 8
        text = tiny.base("tiny-llama").tokenizer.decode(found.encoded[0].ids, skip_special_tokens=True)
        assert text.count(BETWEEN) == shown and tiny.rows().test.fields[0]["text"] in text


def test_stored_weights_answer_as_they_did(tmp_path: Path) -> None:
    """Demonstrations of the scored task are drawn again by seed and labels."""
    from bench.config.schema import Budget
    from bench.train.loop import adapt

    for name in ("instruct", "in_context_tuning"):
        given = on(questions(6))
        plan = prepared(name, given, lr=0.05)
        meter = Meter(Budget(labels=12, train_examples=12))
        meter.watch(plan.seen)
        adapt(plan, given, meter)
        folder = tmp_path / name
        folder.mkdir()
        plan.save(folder)
        fields = tiny.rows().test.fields
        fresh = prepared(name, given, lr=0.05)
        untrained = fresh.answer.predict(fields, Meter())
        assert fresh.load is not None
        fresh.load(folder)
        trained = plan.answer.predict(fields, Meter())
        assert abs(fresh.answer.predict(fields, Meter()) - trained).max() < 1e-5
        assert abs(untrained - trained).max() > 1e-3


def test_the_page_says_which_type_was_held_out(tmp_path: Path) -> None:
    """Below the table of the task, and nothing of the kind where every strategy trained on its own."""
    run_dir = write_run(tmp_path / "results", Fake(tasks=("sst2",), strategies=("zero_shot", "lora")))
    assert "held-out" not in words(render(run_dir, tmp_path / "plain")[0].read_text(encoding="utf-8"))
    plan = PlanFile.model_validate_json((run_dir / "plan.json").read_text(encoding="utf-8"))
    held = [c.model_copy(update={"held_out": "sentiment" if c.strategy == "lora" else None}) for c in plan.cells]
    write_record(run_dir / "plan.json", plan.model_copy(update={"cells": held}))
    told = render(run_dir, tmp_path / "held")
    says = (
        "lora trained on other tasks only, none of the type that is scored (sst2 is sentiment): a score on a held-out"
    )
    assert says in words(told[0].read_text(encoding="utf-8")) and says in told[1].read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "labels"), [("instruct", 0), ("in_context_tuning", 2)])
def test_finished_cells_are_probed_and_not_run_again(name: str, labels: int, tmp_path: Path) -> None:
    """From stored weights: another task of the run, and whether a source holds a test item, in which none of its own
    labels are looked for that it has not read."""
    small = [token for token in tokens(tmp_path) if not token.startswith(("suite=", "tasks.", "model="))]
    given = [*small, "suite=instruct-small", "model=random:tiny-llama", "tasks=sst2,rte,cola,alpaca", "tasks.sst2.limit=20",
             "tasks.rte.limit=20", f"strategies={name}", "probes.retention.items=20", "probes.contamination.items=20",
             *(["strategies.in_context_tuning.k=2", "strategies.in_context_tuning.sources=[cola]"] if labels else [])]  # fmt: skip
    with (tmp_path / "output.txt").open("w") as out:
        results = execute(load(given), Console(file=out, width=200))
    for result in results:
        assert result.outcome.status is Status.ok, result.outcome.reason
        assert result.used is not None and result.used.labels == labels
        folder = tmp_path / "results" / "instruct-small" / result.cell.id
        kept = read_probe(probe_file(folder, "retention")).retention
        other = {"sst2": "rte", "rte": "sst2"}[result.cell.task]
        assert kept is not None and [one.task for one in kept.tasks] == [other]
        seen = read_probe(probe_file(folder, "contamination")).contamination
        assert seen is not None and "overlap" in {check.family for check in seen.checks}
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "results").rglob("*-s0-*/*.json")}
    with (tmp_path / "again.txt").open("w") as out:
        execute(load(given), Console(file=out, width=200))
    assert stamps and stamps == {path: path.stat().st_mtime_ns for path in stamps}
