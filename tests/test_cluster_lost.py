"""What a run on Ray does where nodes are lost, results come back late or Ray itself gives up: with a stand-in for Ray."""

from __future__ import annotations

import subprocess
import sys
import weakref
from contextlib import nullcontext
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from cli_runs import ROOT, tokens
from cluster_fakes import GIB, TWO, Fake, carried_out, crew_of, exceptions, jobs_of, machine, raises
from rich.console import Console

from bench import outlook, plan
from bench.cards import CONTEXT_BYTES
from bench.cluster import crew, node, watch
from bench.cluster.demand import Demand, demand
from bench.cluster.parcel import Packer
from bench.config import Settings, load
from bench.errors import UserFault
from bench.job import Job
from bench.launch import Launcher, Quiet
from bench.records import Predicted, Status
from bench.run import run_all
from bench.stopping import Stop
from bench.store import read_result

THREE = "strategies=zero_shot,lora,frozen"


def lost(number: int) -> Any:
    """An order that ends in a record of the command's own making."""
    return raises(exceptions.NodeDiedError("gone"))


def recorded(jobs: list[Job]) -> list[str | None]:
    """Outcome of every record."""
    paths = [Path(job.folder) / "result.json" for job in jobs]
    return [read_result(path).outcome.status.value if path.is_file() else None for path in paths]


def test_what_failed_comes_after_what_was_never_tried(tmp_path: Path) -> None:
    """Under hours only: of a cell that fails nothing is known, which would put it before all others each time."""
    failed, short, long = (
        job.model_copy(update={"predicted": Predicted(seconds=seconds)})
        for job, seconds in zip(jobs_of(tmp_path, "strategies=zero_shot,lora,frozen"), (None, 1.0, 9.0), strict=True)
    )
    Path(failed.folder).mkdir(parents=True)
    Launcher(tmp_path, 60.0).write(failed, Status.error, "fails")
    for more, order in (([], [failed, long, short]), (["run.max_hours=1"], [long, short, failed])):
        hands = crew.Crew(tmp_path, load(tokens(tmp_path, "executor=ray", *more)).settings)
        assert hands.in_turn([failed, short, long]) == order


def test_a_fault_of_one_node_drops_no_result_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have come back: the fault is told once the other's record is written."""
    fake = Fake(lambda number: lost(number) if number else {"node": "n1", "fault": "node n1: no room"}, at_once=2)
    with pytest.raises(UserFault, match="^node n1: no room$"):
        carried_out(tmp_path, monkeypatch, fake, TWO)
    assert recorded(jobs_of(tmp_path, TWO)) == [None, "error"] and fake.cancelled == []


def test_ctrl_c_keeps_what_has_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is done at that moment: its record is its own and not `interrupted`; a fault beside it hides nothing."""

    class Interrupted(Fake):
        def wait(self, references: list[Any], timeout: float = 0, num_returns: int = 1) -> Any:
            if num_returns == 1 and timeout:
                raise KeyboardInterrupt
            return super().wait(references, timeout, num_returns)

    fake = Interrupted(lambda number: {"node": "n1", "fault": "no room"} if number == 1 else lost(number), at_once=2)
    with pytest.raises(KeyboardInterrupt):
        carried_out(tmp_path, monkeypatch, fake, THREE)
    assert recorded(jobs_of(tmp_path, THREE)) == ["error", None, None] and fake.cancelled == [2]


def test_hours_that_are_over_drop_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All three have come back when the hours are, and no letter has told that they had begun."""
    clock = iter([False] * 3)

    class Later(Stop):
        @property
        def over(self) -> bool:
            return next(clock, True)

    fake = Fake(lost, at_once=3)
    jobs, left, _ = carried_out(tmp_path, monkeypatch, fake, THREE, stop=Later(1.0))
    assert left == 0 and recorded(jobs) == ["error"] * 3 and fake.cancelled == []


class Dying(Fake):
    """A cluster whose nodes are lost once the first two orders have told that they are at work; nothing comes back."""

    def wait(self, references: list[Any], timeout: float = 0, num_returns: int = 1) -> Any:
        if not isinstance(references[0], int):
            return references, []
        for number, name in ((0, "n1"), (1, "n2")) if self.seen == 1 else ():
            self.waiting[number].put.remote((number, name, "begin", 0.0))
        return [], references

    seen = 0

    def nodes(self) -> list[dict[str, Any]]:
        self.seen += 1
        return [machine(1, alive=self.seen == 1), machine(1, alive=self.seen == 1, name="n2")]


@pytest.mark.timeout(60)
def test_a_cluster_without_nodes_ends_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said once, and a fault in words after the patience: not a command that hangs for ever."""
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(watch, "PATIENCE_SECONDS", 0.05)
    said: list[str] = []
    fake = Dying(lost)
    with pytest.raises(UserFault) as told:
        carried_out(tmp_path, monkeypatch, fake, THREE, say=said.append)
    assert str(told.value) == (
        "for 0.05 s no node of the Ray cluster could serve the 3 cells it has (1 CPU); finished cells are kept; allowed: "
        "the same command, once there are nodes for it"
    )
    assert said[1:] == ["Ray: no node is left that can serve the 3 cells it has (1 CPU); waiting 0.05 s for one"]
    assert fake.cancelled == [0, 1, 2] and recorded(jobs_of(tmp_path, THREE)) == [None] * 3


@pytest.mark.timeout(60)
def test_hours_end_a_run_whose_nodes_are_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was at work on a lost node is taken back like what never began."""
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.0)
    clock = iter([False] * 4)

    class Later(Stop):
        @property
        def over(self) -> bool:
            return next(clock, True)

    fake = Dying(lost)
    _, left, _ = carried_out(tmp_path, monkeypatch, fake, THREE, stop=Later(1.0))
    assert left == 3 and sorted(fake.cancelled) == [0, 1, 2]


def test_what_the_nodes_that_are_left_can_serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worked by hand: two nodes of 8 and 2 GiB, one cell asks for 4. Lost is the small one, then the large one, then a
    new one joins; while another cell is at work nothing is said."""
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.0)
    [job] = jobs_of(tmp_path, "strategies=lora")
    large, small = machine(8, name="large"), machine(2, name="small")
    asked: Demand = demand([large, small], Settings(executor="ray"), "cpu")
    said, nodes = list[str](), [[large], [small], [small], [small, machine(8, name="new")]]
    looking = watch.Watch(lambda: nodes.pop(0), asked, said.append)
    one = watch.Open(job.model_copy(update={"memory_gib": 4.0}), 0, "small")
    two = watch.Open(job, 1, "small")
    assert asked.options(one.job)["memory"] == 4 * GIB and looking.slots == 5
    looking.look([one, two])
    assert (one.node, two.node, looking.slots, said) == (None, None, 4, [])
    two.node = "small"
    looking.look([one, two])
    assert (two.node, looking.slots, looking.since, said) == ("small", 1, None, [])
    looking.look([one])
    assert looking.since is not None and said == [
        "Ray: no node is left that can serve the 1 cell it has (2 CPUs and 4.00 GiB of memory); waiting 300 s for one"
    ]
    looking.look([one])
    assert looking.since is None and looking.slots == 5 and len(said) == 1


@pytest.mark.parametrize("end", [UserFault, KeyboardInterrupt])
def test_trackers_hear_of_what_came_back_whatever_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: type[BaseException]
) -> None:
    """Of each as it comes back, not after the last; of what comes back with the end; of each once."""
    jobs, told, heard = jobs_of(tmp_path, THREE), list[str](), list[list[str]]()

    class Ending(Fake):
        def wait(self, references: list[Any], timeout: float = 0, num_returns: int = 1) -> Any:
            if timeout and num_returns == 1 and told:
                self.at_once = 1
                raise end("it is over")
            return super().wait(references, timeout, num_returns)

    def serve(number: int) -> Any:
        heard.append(list(told))
        return lost(number)

    request = load(tokens(tmp_path, "executor=ray", THREE))
    hands = crew_of(tmp_path, monkeypatch, Ending(serve))
    with pytest.raises(end):
        run_all(request, jobs, hands, Console(file=StringIO()), Stop(None), lambda record: told.append(record.cell.id))
    assert told == [job.cell.id for job in jobs[:2]] and heard == [[], told[:1]]
    assert recorded(jobs) == ["error", "error", None]


def test_the_memory_of_the_commands_machine_is_no_limit_of_a_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its card, here of one byte beside the context, is not the nodes': no cell is refused for it. A cap and a card that is named hold."""
    seen: list[dict[str, int | None]] = []

    def sized(jobs: list[Job], limits: dict[str, int | None], ask: Any) -> dict[str, Predicted]:
        seen.append(limits)
        return {job.cell.id: Predicted() for job in jobs}

    monkeypatch.setattr(outlook, "sized", sized)
    monkeypatch.setattr(
        "bench.measure.card.describe", lambda: {"memory_bytes": CONTEXT_BYTES + 1, "compute_capability": "8.0"}
    )
    given = ["strategies=lora", "device=cuda", "predict=true"]
    ray = "executor=ray"
    for more in ([ray], [ray, "budget.memory_gib=2"], [ray, "gpu=t4"], ["executor=local"]):
        request = load(tokens(tmp_path, *given, *more))
        outlook.outlook(request, plan.make(request))
    none, cap, card, local = (next(iter(limits.values())) for limits in seen)
    assert (none, cap, local) == (None, 2 * GIB, 1) and card is not None and card > 10 * GIB
    monkeypatch.setattr("bench.measure.card.describe", lambda: None)
    request = load(tokens(tmp_path, "strategies=lora", "executor=ray", "budget.memory_gib=100000"))
    assert plan.make(request).jobs[0].memory_gib == 100000


def test_files_that_ray_has_no_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line: what, which of Ray's errors, what to do."""

    class Full(Fake):
        def put(self, content: Any) -> Any:
            raise exceptions.OutOfDiskError("no room")

    with pytest.raises(UserFault) as told:
        carried_out(tmp_path, monkeypatch, Full(lost), TWO)
    assert str(told.value).startswith(
        "Ray cannot take the files that random:tiny-gpt2 sst2 zero_shot s0 needs (OutOfDiskError: no room"
    )
    assert str(told.value).endswith(
        "); finished cells are intact; allowed: more room on the disk of this machine, or for Ray's objects (ray start "
        "--object-store-memory=BYTES)"
    )


def test_probes_are_handed_over_as_they_are_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worked by hand: nodes for two at a time, so Ray has four of seven at most, and in the end all were answered."""
    jobs = [
        job.model_copy(update={"probe": "formats"})
        for job in jobs_of(tmp_path, "strategies=lora", "seeds=7", "probes=formats")
    ]
    for job in jobs:
        Path(job.folder).mkdir(parents=True)
        (Path(job.folder) / "result.json").write_text("{}")
    fake = Fake(lost)
    hands, most = crew_of(tmp_path, monkeypatch, fake), list[int]()
    monkeypatch.setattr(
        fake, "get", lambda one: most.append(len(hands.open)) or lost(0) if isinstance(one, int) else one
    )
    assert hands.carry_out(jobs, lambda shown, slots: nullcontext(Quiet()), Stop(None)) == 0
    assert most == [4, 4, 4, 4, 3, 2, 1]
    assert all((Path(job.folder) / "probes" / "formats.json").is_file() for job in jobs)
    assert hands.carry_out(jobs, lambda shown, slots: nullcontext(Quiet()), Stop(1e-9)) == 6


def test_what_a_cell_has_stored_is_with_ray_only_for_its_probes(tmp_path: Path) -> None:
    """Once for two probes of a cell; forgotten when the next cell's probe is packed. The data stay."""

    class Held:
        """What Ray gives for a content."""

    held: list[weakref.ref[Held]] = []

    def put(content: Any) -> Held:
        given = Held()
        held.append(weakref.ref(given))
        return given

    packer = Packer(put, 60.0)
    for number, job in enumerate(jobs_of(tmp_path, TWO, "probes=formats")):
        Path(job.folder).mkdir(parents=True)
        (Path(job.folder) / "result.json").write_text(f"{{}}{number}")
        for _ in range(2):
            assert len(packer.pack(number, job.model_copy(update={"probe": "formats"}))[1]) == 2
    assert [one() is None for one in held] == [False, True, False]


def test_no_folder_is_left_on_a_node() -> None:
    """Of a warm process that is ended for another card, and of one that ends with Ray's process."""
    node.end_all()
    first = node.warm("0").run_dir
    assert first.is_dir()
    second = node.warm("1").run_dir
    assert not first.exists() and second.is_dir()
    node.end_all()
    assert not second.exists() and not node._warm
    code = "from bench.cluster import node; print(node.warm('0').run_dir, node.warm('0').run_dir.is_dir())"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    place, was = there.stdout.split()
    assert was == "True" and "adaptbench-host-" in place and not Path(place).exists()


def test_short_of_memory_beside_one_that_came_back_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both were on the node, and the first is recorded already: still nobody knows whose fault it was."""

    class Both(Fake):
        def wait(self, references: list[Any], timeout: float = 0, num_returns: int = 1) -> Any:
            for number in references if timeout else ():
                self.waiting[number].put.remote((number, "n1", "begin", 0.0))
            return super().wait(references, timeout, num_returns)

    fake = Both(lambda number: raises(exceptions.OutOfMemoryError("95%")) if number else lost(number), at_once=2)
    jobs, _, _ = carried_out(tmp_path, monkeypatch, fake, TWO)
    found = [read_result(Path(job.folder) / "result.json").outcome for job in jobs]
    assert found[1].status is Status.error and "with 2 cells on it" in (found[1].reason or "")
