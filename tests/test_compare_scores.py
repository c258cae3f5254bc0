"""The score gate: drops that are more than chance, answers that turned over, labels read otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gate_runs import LORA, SMALL, Edit, answer, changed, found, full, runs
from records_factory import Fake, write_run

from bench.compare.sides import read_side
from bench.compare.whole import compare
from bench.records import Result


def test_a_score_that_falls_by_more_than_chance_is_a_regression(tmp_path: Path) -> None:
    one = found(tmp_path, skill=0.6)
    [worse] = [f for f in one.of("regression") if f.cell == LORA]
    assert worse.gate == "score" and worse.figure == "accuracy" and worse.after < worse.before
    assert "exact one-sided McNemar test" in worse.says and "after Holm over 2 tests" in worse.says


def test_a_score_that_falls_by_chance_or_rises_passes(tmp_path: Path) -> None:
    def lose(number: int, table: dict[str, Any]) -> None:
        right = [i for i, (a, b) in enumerate(zip(table["label"], table["predicted"], strict=True)) if a == b]
        for i in right[:number]:
            table["predicted"][i] = 1 - table["predicted"][i]

    def scored(result: Result, by: int) -> Result:
        score = result.scores["accuracy"]  # type: ignore[index]
        lower = score.model_copy(update={"value": score.value - by / score.n})
        return result.model_copy(update={"scores": {"accuracy": lower}})

    # of n discordant items, all lost: p = 2^-n; after Holm over 2 tests 5 lost items give 0.06, 6 give 0.03
    for lost, code in ((5, 0), (6, 1)):
        base, new = runs(tmp_path / str(lost), changed("lora", lambda r, by=lost: scored(r, by)))  # type: ignore[misc]
        answer(new, "lora", lambda table, number=lost: lose(number, table))  # type: ignore[misc]
        one = compare(read_side(str(base)), read_side(str(new)))
        assert one.code == code, one.findings
        if lost == 5:
            back = compare(read_side(str(new)), read_side(str(base)))
            assert back.code == 0 and [f.gate for f in back.of("improvement")] == ["score"]
            told = {f.gate: f for f in one.of("told")}
            assert "(5 items lost, 0 won), p = 0.031, 0.062 after Holm" in told["score"].says
            assert told["answers"].after == "5 of 200"


def test_seeds_are_tested_together_over_items(tmp_path: Path) -> None:
    """Three seeds of one strategy make one test, in which an item's seeds stand or fall together."""
    base = write_run(tmp_path / "base", Fake(**{**SMALL, "edit": full, "seeds": (0, 1, 2)}))
    new = write_run(tmp_path / "new", Fake(**{**SMALL, "edit": full, "seeds": (0, 1, 2), "skill": 0.6}))
    two = compare(read_side(str(base)), read_side(str(new)))
    [worse] = [f for f in two.of("regression") if "lora" in f.cell]
    assert worse.cell == "smollm2-135m-instruct sst2 lora over 3 seeds"
    assert "one-sided randomisation test over items, 3 seeds of each together" in worse.says


def test_other_metrics_are_tested_by_the_jackknife(tmp_path: Path) -> None:
    fakes = [Fake(**{**SMALL, "tasks": ("mrpc", "cola"), "edit": full, "skill": skill}) for skill in (2.0, 0.4)]
    base, new = (write_run(tmp_path / str(i), fake) for i, fake in enumerate(fakes))
    one = compare(read_side(str(base)), read_side(str(new)))
    worse = {f.figure: f.says for f in one.of("regression") if " lora " in f.cell}
    assert set(worse) == {"f1", "matthews"}
    assert all(words.startswith("one-sided t test, jackknife over items, p = ") for words in worse.values())


def test_a_wrong_label_map_is_seen_where_the_score_is_chance(tmp_path: Path) -> None:
    """Half right before, half right after: no score tells, but every answer turned over."""

    def half(table: dict[str, Any]) -> None:
        table["predicted"] = [label if i % 2 else 1 - label for i, label in enumerate(table["label"])]
        table["score_0"] = [-0.1 if p == 0 else -3.0 for p in table["predicted"]]
        table["score_1"] = [-3.0 if p == 0 else -0.1 for p in table["predicted"]]

    def permuted(table: dict[str, Any]) -> None:
        half(table)
        table["predicted"] = [1 - p for p in table["predicted"]]
        table["score_0"], table["score_1"] = table["score_1"], table["score_0"]

    def at_half(result: Result) -> Result:
        scores = {"accuracy": full(result).scores["accuracy"].model_copy(update={"value": 0.5})}  # type: ignore[index]
        return full(result).model_copy(update={"scores": scores})

    base = write_run(tmp_path / "base", Fake(**{**SMALL, "edit": at_half}))
    new = write_run(tmp_path / "new", Fake(**{**SMALL, "edit": at_half}))
    answer(base, "*", half)
    answer(new, "zero_shot", half)
    answer(new, "lora", permuted)
    one = compare(read_side(str(base)), read_side(str(new)))
    [worse] = one.findings
    assert (worse.kind, worse.gate, worse.cell, worse.after) == ("regression", "answers", LORA, "200 of 200")
    assert "most answers turned over, as under a wrong label map" in worse.says

    def near(table: dict[str, Any]) -> None:
        permuted(table)
        table["score_0"], table["score_1"] = ([s / 1e5 for s in table[n]] for n in ("score_0", "score_1"))

    answer(new, "lora", near)  # rounding may turn near-ties over, another processor is enough
    one = compare(read_side(str(base)), read_side(str(new)))
    assert one.code == 0 and one.of("told")[0].says.startswith("0 of them no near-tie")


def test_labels_read_otherwise_are_a_regression_unless_the_data_changed(tmp_path: Path) -> None:
    def swap(table: dict[str, Any]) -> None:
        table["label"] = [1 - label for label in table["label"]]

    base, new = runs(tmp_path / "a")
    answer(new, "lora", swap)
    one = compare(read_side(str(base)), read_side(str(new)))
    [worse] = one.of("regression")
    assert (worse.cell, worse.figure, worse.after) == (LORA, "right answers changed", "200 of 200")
    other = changed(
        "lora", lambda r: r.model_copy(update={"data": r.data.model_copy(update={"fingerprint": "sha256:0"})})
    )
    base, new = runs(tmp_path / "b", other)
    answer(new, "lora", swap)
    one = compare(read_side(str(base)), read_side(str(new)))
    assert one.code == 0 and one.of("told")[0].says == "the data's fingerprint changed"


def test_a_drop_without_predictions_has_no_excuse(tmp_path: Path) -> None:
    base, new = runs(tmp_path, skill=0.95)
    for path in new.glob("*/predictions.parquet"):
        path.unlink()
    one = compare(read_side(str(base)), read_side(str(new)))
    assert one.code == 1
    assert one.of("regression")[0].says == "the predictions of new are missing, so no test can call it chance"


def test_label_scores_that_moved_are_told(tmp_path: Path) -> None:
    base, new = runs(tmp_path)
    answer(new, "lora", lambda table: table.update(score_0=(np.array(table["score_0"]) + 0.25).tolist()))
    one = compare(read_side(str(base)), read_side(str(new)))
    assert one.code == 0
    assert one.remarks == [f"label scores moved in 1 cell whose answers stand, by at most 0.25 ({LORA})"]


def at(value: float) -> Edit:
    """The recorded score alone."""

    def edit(result: Result) -> Result:
        score = result.scores["accuracy"].model_copy(update={"value": value})  # type: ignore[index]
        return result.model_copy(update={"scores": {"accuracy": score}})

    return edit


def share(folder: Path) -> float:
    """Right answers of lora's first cell."""
    table = pq.read_table(next(folder.glob("*-lora-s1-*/predictions.parquet"))).to_pydict()
    return float(np.mean([a == b for a, b in zip(table["label"], table["predicted"], strict=True)]))


@pytest.mark.parametrize("value", [0.1, 0.99])
def test_a_score_that_its_predictions_do_not_give_is_a_regression(tmp_path: Path, value: float) -> None:
    """The answers stand, so no test sees anything: the metric itself is computed otherwise, up or down."""
    one = found(tmp_path, changed("lora", at(value)))
    [worse] = one.findings
    assert (worse.kind, worse.cell, worse.after) == ("regression", LORA, value)
    assert worse.says.endswith("the metric is computed otherwise")


def test_seeds_with_items_of_their_own_are_tested_alone(tmp_path: Path) -> None:
    """The first seed stands and the second falls: its items are others, and it must not go untested for that."""
    seeds = {**SMALL, "seeds": (0, 1)}
    base = write_run(tmp_path / "base", Fake(**{**seeds, "edit": full}))

    def moved(folder: Path, lost: int) -> None:
        for path in folder.glob("*-lora-s1-*/predictions.parquet"):
            table = pq.read_table(path).to_pydict()
            table["row"] = [row + 1000 for row in table["row"]]
            right = [i for i, (a, b) in enumerate(zip(table["label"], table["predicted"], strict=True)) if a == b]
            for i in right[:lost]:
                table["predicted"][i] = 1 - table["predicted"][i]
            pq.write_table(pa.table(table), path)

    def fallen(result: Result) -> Result:
        mine = result.cell.strategy == "lora" and result.cell.seed == 1
        return at(share(base) - 80 / 200)(full(result)) if mine else full(result)

    new = write_run(tmp_path / "new", Fake(**{**seeds, "edit": fallen}))
    moved(base, 0)
    moved(new, 80)  # fewer than half of the answers
    [worse] = compare(read_side(str(base)), read_side(str(new))).of("regression")
    assert worse.cell == "smollm2-135m-instruct sst2 lora s1" and "(80 items lost, 0 won)" in worse.says


def test_items_drawn_otherwise_from_the_same_data_are_a_regression(tmp_path: Path) -> None:
    base, new = runs(tmp_path)
    answer(new, "lora", lambda table: table.update(row=[row + 5 for row in table["row"]]))
    [worse] = compare(read_side(str(base)), read_side(str(new))).findings
    assert (worse.kind, worse.figure, worse.after) == ("regression", "other test items", "5 of 200")


def test_answers_that_are_gone_guard_nothing(tmp_path: Path) -> None:
    base, new = runs(tmp_path)
    next(new.glob("*-lora-*/predictions.parquet")).unlink()
    [worse] = compare(read_side(str(base)), read_side(str(new))).findings
    assert (worse.kind, worse.figure, worse.says) == ("regression", "answers", "nothing guards them any more")
    back = compare(read_side(str(new)), read_side(str(base)))
    assert back.code == 0, "what the base did not keep cannot be compared"


def test_other_clusters_do_not_excuse_a_drop(tmp_path: Path) -> None:
    base, new = runs(tmp_path, skill=0.6)
    answer(new, "lora", lambda table: table.update(cluster=[i // 2 for i in range(len(table["row"]))]))
    worse = compare(read_side(str(base)), read_side(str(new))).of("regression")
    assert LORA in {f.cell for f in worse} and "over clusters" in {f.cell: f for f in worse}[LORA].says
