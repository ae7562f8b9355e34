"""recipe.yaml: what a recipe is, on what, with what versions, its stages, presets and results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from common.errors import UserError, did_you_mean
from common.schema import Strict, validate
from common.settings import SECTIONS, Settings
from common.yaml_file import Document, load

ROOT = Path(__file__).resolve().parent.parent
STAGES = ("weights", "data", "train", "export", "evaluate", "report")
Stage = Literal["weights", "data", "train", "export", "evaluate", "report"]


class Defect(Strict):
    """Something that is wrong in the public original, and what this recipe does instead."""

    defect: str
    correction: str
    test: str
    """The test that holds it: FILE::NAME, the file from the recipe's folder."""


class Reproduces(Strict):
    name: str
    source: str
    corrected: list[Defect]


PythonVersion = Annotated[str, Field(pattern=r"^\d+\.\d+$")]


class Python(Strict):
    """The interpreters for which the pins have wheels. Versions like "3.11"."""

    min: PythonVersion
    max: PythonVersion
    prefer: PythonVersion
    """The one that the recipe is measured with."""


class Source(Strict):
    """Where a distribution comes from that is on no package index."""

    url: Annotated[str, Field(pattern=r"^git\+https://\S+@\S+$")]
    """Its repository at a tag, as git+https://HOST/REPOSITORY@TAG."""
    variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")]
    """The environment variable that may name a checkout, an sdist or a wheel of it instead."""


class Versions(Strict):
    """What works together, by a table that the framework's makers publish; the doctor holds the machine to it."""

    source: str
    sets: list[dict[str, str]]
    """Names and versions: distributions, and what the platforms' checks read (CANN, driver). The pins are one set."""


class RecipePlatform(Strict):
    tier: Literal["declared", "smoked", "verified"]
    requirements: str
    """The pins, a file of the recipe's folder."""
    patches: list[str] = []
    """Corrections that the framework needs here: FRAMEWORK.MODULE under patches/."""
    config: str | None = None
    """What differs here of the recipe's `config`: a file that is laid over it; null takes a key out."""
    log: str | None = None
    """The log of a run: needed above the tier `declared`."""


class Command(Strict):
    """One command of a stage. `python` stands for the interpreter of `environment`."""

    environment: Literal["light", "recipe"]
    launch: bool = False
    """True: started on every device through the platform's launcher; `run` then begins with the script."""
    run: list[str | list[str]]
    """Words with ${section.key} references. An inner list is left out when a reference in it is not set."""


class StageSpec(Strict):
    commands: list[Command]
    publishes: list[str] = []
    """What moves from the stage's folder to the run directory."""


class Memory(Strict):
    """What a preset needs; where nobody measured it, `source` names who claims it."""

    device_gib: float
    host_gib: float
    measured: bool
    source: str


Dtype = Literal["float32", "bfloat16", "float16"]


class MemoryModel(Strict):
    """What the recipe's framework holds in memory that no setting says; `tools plan` computes with it."""

    sharding: Literal["fsdp", "zero"]
    """fsdp: every rank holds a share of all, layers are gathered when used. zero: as parallel.zero_stage says."""
    zero_stage: int = Field(default=0, ge=0, le=3)
    """The ZeRO stage that the framework's own way comes to, where parallel.zero_stage is not stated."""
    recompute: bool = False
    """Whether decoder layers are computed again, where train.gradient_checkpointing is not stated."""
    trained_dtype: Dtype | None = None
    """In what the trained weights are held between steps (LoRA's, or all). Not stated: model.dtype."""
    gradient_dtype: Dtype | None = None
    """In what gradients are kept until the optimizer's step. Not stated: as the trained weights."""
    master_weights: bool = False
    """Whether the optimizer keeps an fp32 copy of the trained weights."""
    optimizer_bytes: int = Field(default=8, ge=0)
    """Optimizer state of one trained parameter, without the fp32 copy: AdamW's two fp32 moments are 8."""
    step_bytes: int = Field(default=0, ge=0)
    """What one trained parameter takes for the time of the optimizer's step; a foreach optimizer's copies."""
    fused_norms: bool = False
    """Whether a fused kernel computes the norms: they then keep their input alone, and no fp32 copy of it."""
    loss_chunk: int | None = Field(default=None, ge=1)
    """Tokens whose logits exist at one time. Not stated: those of the whole micro-batch."""
    logit_bytes: int = Field(default=12, ge=1)
    """Of one logit at the peak of the loss: log-softmax and two gradients in fp32 are 12; four copies in bf16 are 8."""
    loading: Literal["layer", "model"] = "model"
    """What a process holds while loading, beside its own share: one layer, or the whole model in the host's memory."""
    process_gib: float = Field(default=0.5, ge=0)
    """Host memory of one process before there is a model: the interpreter and the framework."""


class Preset(Settings):
    summary: str
    reference_model: str | None = None
    """The Llama 3 it is meant for, by hub id; `tools plan` computes with its sizes where --model is not given."""
    platforms: list[str]
    """Where it may run. One that every machine is (cpu) is taken unless another is asked for."""
    requires: list[str] = []
    """Capabilities that the platform must have."""
    memory: Memory | None = None


class Result(Strict):
    """A measured or published result of this recipe or of its original."""

    what: str
    metric: str
    value: float
    unit: str
    hardware: str
    source: str


class Recipe(Settings):
    summary: str
    maintainers: list[str]
    framework: str
    """The key under `frameworks:` of the platforms."""
    launcher: str
    python: Python
    versions: Versions | None = None
    """What of a vendor's software goes with what of the framework."""
    reproduces: Reproduces
    platforms: dict[str, RecipePlatform]
    sources: dict[str, Source] = {}
    """Distributions that are on no package index, by name. Their dependencies are among the pins."""
    config: str
    """The framework's configuration, in its own dialect, with ${section.key} references."""
    stages: dict[Stage, StageSpec]
    memory_model: MemoryModel | None = None
    presets: dict[str, Preset]
    results: list[Result] = []
    parent: str | None = Field(default=None)
    """The recipe this was copied from, and its commit."""

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        for name in ("smoke", "full"):
            if name not in self.presets:
                raise ValueError(f"the preset {name!r} is missing from presets")
        for name, preset in self.presets.items():
            for section in SECTIONS:
                known = getattr(self, section).model_fields_set
                for key in getattr(preset, section).model_fields_set:
                    if key not in known:
                        raise ValueError(
                            f"presets.{name}.{section}.{key} overrides a key that {section} does not state"
                        )
            for platform in preset.platforms:
                if platform not in self.platforms:
                    raise ValueError(f"presets.{name}.platforms: {platform} is not in platforms")
        return self


def folders() -> Iterator[Path]:
    """The folders of all recipes: those under recipes/ that hold a recipe.yaml."""
    return iter(sorted(file.parent for file in (ROOT / "recipes").glob("*/recipe.yaml")))


def find(name_or_folder: str | Path) -> Path:
    """The folder of a recipe given by its name or path. Raises UserError when there is none."""
    folder = Path(name_or_folder)
    if (folder / "recipe.yaml").exists():
        return folder.resolve()
    names = [path.name for path in folders()]
    if str(name_or_folder) in names:
        return ROOT / "recipes" / str(name_or_folder)
    hint = did_you_mean(str(name_or_folder), names)
    raise UserError(f"there is no recipe {str(name_or_folder)!r}", expected=", ".join(names), hint=hint)


def read(folder: Path) -> tuple[Recipe, Document]:
    """The recipe in `folder`, and its file with lines. Raises UserError for any mistake in it."""
    document = load(folder / "recipe.yaml")
    return validate(Recipe, document), document
