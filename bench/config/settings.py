"""How a run is carried out, never what is measured."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from bench.config.frozen import Frozen, safe_name

Tracker = Literal["trackio", "mlflow", "wandb"]

ADDRESS = re.compile(r"(?:[\w.\-]+|\[[0-9A-Fa-f:.]+\]):\d{1,5}")
"""`host:port`, an IPv6 address in brackets."""


class DataSettings(Frozen):
    """Which of the possible sources serves the tasks of this run."""

    source: Literal["auto", "mirror", "hub", "sample"] = "auto"
    mirror: str | None = Field(None, description="folder laid out <org>/<name>/<config>/<split>.parquet")
    _code: str | None = PrivateAttr(None)

    @property
    def code(self) -> str | None:
        """`adapters_path`: the one folder whose Python files may make rows too."""
        return self._code


class RunSettings(Frozen):
    """How long and under which name."""

    name: str | None = Field(None, description="folder under results/; by default the suite's name")
    cell_seconds: float = Field(3600.0, gt=0, description="a cell running longer becomes the outcome `timeout`")
    max_hours: float | None = Field(
        None, gt=0, description="no further cell begins after so many hours; the same command goes on later"
    )

    @field_validator("name")
    @classmethod
    def plain_name(cls, value: str | None) -> str | None:
        return value if value is None else safe_name(value)


class Settings(Frozen):
    """How a run is carried out, never what is measured: no field here is part of a cell's identity."""

    data: DataSettings = Field(default_factory=DataSettings)
    run: RunSettings = Field(default_factory=RunSettings)
    results_dir: str = "results"
    reports_dir: str = "reports"
    adapters_path: str | None = Field(
        None, description="a further folder of strategy files (foreign code: named in records)"
    )
    device: Literal["auto", "cpu", "cuda"] = "auto"
    executor: Literal["local", "ray"] = "local"
    ray_address: str | None = Field(
        None, description="`auto` or host:port of a running Ray cluster; without it a local one is started and stopped"
    )
    ray_gpu: str | None = Field(None, description="type of card, as the Ray cluster names it, that cells run on")
    threads: int | None = Field(
        None, ge=1, description="CPU threads of a cell; by default every core this process may use"
    )
    keep_adapters: bool = Field(True, description="keep what a strategy stored, so that a later probe need not retrain")
    features: bool = Field(
        True, description="read a batch by a frozen model once a run; every cell is charged as if it had read it"
    )
    predict: bool = Field(True, description="predict every cell's memory before the first one runs, for its record")
    rerun: Literal["none", "changed", "failed", "all"] = Field("none", description="which finished cells to do again")
    trackers: list[Tracker] = Field(
        default_factory=list, description="experiment trackers told of every cell once its record is on disk"
    )

    @field_validator("trackers", mode="before")
    @classmethod
    def one_or_several(cls, value: Any) -> Any:
        """`trackers=a,b` is `[a, b]`."""
        return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value

    @field_validator("trackers")
    @classmethod
    def each_once(cls, value: list[str]) -> list[str]:
        """Told twice of the same cell, a tracker would hold two runs of it."""
        if len(set(value)) != len(value):
            raise ValueError("names a tracker twice")
        return value

    @field_validator("ray_address")
    @classmethod
    def plain_address(cls, value: str | None) -> str | None:
        if value is None or value == "auto" or ADDRESS.fullmatch(value):
            return value
        if "://" in value:
            raise ValueError(
                "the command itself must run on a machine of the cluster, a Ray client is not enough; allowed: auto, "
                "or host:port"
            )
        raise ValueError("allowed: auto, or host:port of the cluster's head (6379 unless it was told another port)")

    @model_validator(mode="after")
    def lets_rows_be_made_by_its_code(self) -> Settings:
        self.data._code = self.adapters_path
        return self

    @model_validator(mode="after")
    def is_carried_out_by_ray(self) -> Settings:
        for name in ("ray_address", "ray_gpu"):
            if (got := getattr(self, name)) is not None and self.executor != "ray":
                here = f"{name}={got} is for executor=ray, got executor={self.executor}"
                raise ValueError(f"{here}; allowed: executor=ray, or no {name}")
        if self.ray_gpu is not None and self.device == "cpu":
            card = f"ray_gpu={self.ray_gpu} names a card, got device=cpu"
            raise ValueError(f"{card}; allowed: device=cuda, or no ray_gpu")
        return self

    @model_validator(mode="after")
    def comes_to_an_end(self) -> Settings:
        if self.rerun in ("all", "failed") and self.run.max_hours is not None:
            which = "every cell" if self.rerun == "all" else "every cell that failed"
            raise ValueError(
                f"rerun={self.rerun} begins again with {which} each time, so under run.max_hours the last ones may "
                "never be reached; allowed: rerun=none or changed, or no run.max_hours"
            )
        return self
