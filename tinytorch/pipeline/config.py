"""The whole of a training run as typed settings, refused by name where they cannot be, and kept in a file."""

import dataclasses
import math
import re
from pathlib import Path

from ..device import Generator
from ..layers import require_positive
from ..mamba import Mamba, MambaConfig
from ..transformers import GPT, GPTConfig
from . import config_files
from .failures import FailureConfig
from .fields import as_text, build, require_field, require_table, require_types

MODEL_KINDS = {"gpt": GPTConfig, "mamba": MambaConfig}
MODELS = {GPTConfig: GPT, MambaConfig: Mamba}
PRECISIONS = ("float32", "bfloat16", "float16")
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
MAX_EFFECTIVE_BATCH = 1024


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How to train. Raises ValueError, naming the field, for what cannot be.

    batch_size: rows of a batch; gradient_accumulation_steps: batches of a step. learning_rate: at its highest, after
    warmup_steps (at most a tenth of all steps); it ends at min_lr_ratio times that. weight_decay: of matrices.
    max_grad_norm: the longest gradient. num_epochs: passes over the data. save_steps, eval_steps: every so many steps,
    besides the end of each epoch. use_mixed_precision: matrix products in `precision`, which is simulated (`autocast`).
    gradient_checkpointing: blocks compute again in the backward pass what they would have kept. max_checkpoints: how
    many of the newest are kept, beside the best. failures: what is done about those.
    """

    batch_size: int = 32
    gradient_accumulation_steps: int = 4
    learning_rate: float = 1e-4
    weight_decay: float = 0.1
    max_grad_norm: float = 1.0
    num_epochs: int = 3
    warmup_steps: int = 1000
    save_steps: int = 1000
    eval_steps: int = 500
    use_mixed_precision: bool = True
    gradient_checkpointing: bool = False
    precision: str = "bfloat16"
    min_lr_ratio: float = 0.0
    max_checkpoints: int = 5
    failures: FailureConfig = dataclasses.field(default_factory=FailureConfig)

    def __post_init__(self):
        require_types(self)
        names = ("batch_size", "gradient_accumulation_steps", "num_epochs", "save_steps", "eval_steps")
        require_positive(**{name: getattr(self, name) for name in (*names, "max_checkpoints")})
        require_field(self, "warmup_steps", self.warmup_steps >= 0, "at least 0")
        require_field(self, "learning_rate", 0 < self.learning_rate < math.inf, "above 0 and finite")
        require_field(self, "weight_decay", 0 <= self.weight_decay < math.inf, "at least 0 and finite")
        require_field(self, "max_grad_norm", 0 < self.max_grad_norm < math.inf, "above 0 and finite")
        require_field(self, "min_lr_ratio", 0 <= self.min_lr_ratio <= 1, "between 0 and 1")
        require_field(self, "precision", self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}")
        if self.use_mixed_precision and self.precision == "float32":
            raise ValueError(
                "TrainingConfig needs precision 'bfloat16' or 'float16' with use_mixed_precision=True, but got "
                "'float32'. Set use_mixed_precision=False."
            )

    @property
    def compute_dtype(self):
        """The type that matrix products are computed in: `precision`, or "float32" without mixed precision."""
        return self.precision if self.use_mixed_precision else "float32"


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """What to train on. Raises ValueError, naming the field, for what cannot be.

    max_seq_length: tokens of a row. tokenizer_path, dataset_path: files. num_workers: batches prepared ahead, 0 for
    none. preprocessing_batch_size: documents tokenised at a time. train_split, val_split: shares that sum to 1.
    shuffle_data: another order in each pass. packing: rows are filled with several documents that do not see each
    other. bucket_by_length: batches of rows of like length. max_tokens_per_batch: the most rows times columns.
    """

    max_seq_length: int = 2048
    tokenizer_path: str | None = None
    dataset_path: str | None = None
    num_workers: int = 4
    preprocessing_batch_size: int = 1000
    train_split: float = 0.9
    val_split: float = 0.1
    shuffle_data: bool = True
    packing: bool = False
    bucket_by_length: bool = False
    max_tokens_per_batch: int | None = None

    def __post_init__(self):
        as_text(self, "tokenizer_path", "dataset_path")
        require_types(self)
        require_positive(max_seq_length=self.max_seq_length, preprocessing_batch_size=self.preprocessing_batch_size)
        require_field(self, "num_workers", self.num_workers >= 0, "at least 0")
        require_field(self, "train_split", 0 < self.train_split <= 1, "above 0 and at most 1")
        require_field(self, "val_split", 0 <= self.val_split < 1, "at least 0 and below 1")
        if not math.isclose(self.train_split + self.val_split, 1):
            raise ValueError(
                f"DataConfig needs train_split and val_split that sum to 1, but got {self.train_split} and "
                f"{self.val_split}."
            )
        if self.max_tokens_per_batch is not None:
            require_positive(max_tokens_per_batch=self.max_tokens_per_batch)


@dataclasses.dataclass(frozen=True)
class Config:
    """Model, training and data together, with where the run is kept: `output_dir/experiment_name`.

    Raises ValueError, naming the fields, for what cannot be, also where they do not fit each other.
    """

    model: GPTConfig | MambaConfig
    training: TrainingConfig = dataclasses.field(default_factory=TrainingConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    experiment_name: str = "experiment"
    output_dir: str = "runs"
    log_level: str = "INFO"
    seed: int = 42

    def __post_init__(self):
        as_text(self, "output_dir")
        require_types(self)
        if type(self.model) not in MODELS:
            kinds = " or ".join(kind.__name__ for kind in MODELS)
            raise ValueError(f"Config needs model to be a {kinds}, but got a {type(self.model).__name__}.")
        usual = re.fullmatch(r"[\w.+=-]+", self.experiment_name) and self.experiment_name.strip(".")
        require_field(self, "experiment_name", usual, "the name of a folder: letters, digits and any of . _ + = -")
        require_field(self, "output_dir", self.output_dir.strip(), "the path of a folder")
        require_field(self, "log_level", self.log_level in LOG_LEVELS, f"one of {', '.join(LOG_LEVELS)}")
        require_field(self, "seed", self.seed >= 0, "at least 0")
        self._check_together()

    def _check_together(self):
        training, data, model = self.training, self.data, self.model
        batch = training.batch_size * training.gradient_accumulation_steps
        if batch > MAX_EFFECTIVE_BATCH:
            raise ValueError(
                f"Config needs batch_size * gradient_accumulation_steps of at most {MAX_EFFECTIVE_BATCH}, but got "
                f"{training.batch_size} * {training.gradient_accumulation_steps} = {batch}. Lower one of them."
            )
        width = getattr(model, "d_model", None) or getattr(model, "n_embd", 0)
        expand = getattr(model, "expand", 1)
        if width % expand:
            raise ValueError(f"Config needs d_model divisible by expand, but got {width} and {expand}.")
        if data.max_seq_length > 8192 and width > 2048:
            raise ValueError(
                f"Config needs max_seq_length of at most 8192 for a model wider than 2048, but got "
                f"{data.max_seq_length} and {width}. What a step keeps would not fit into memory."
            )
        limit = getattr(model, "n_positions", None)
        if limit is not None and data.max_seq_length > limit:
            raise ValueError(
                f"Config needs max_seq_length of at most the model's n_positions, but got {data.max_seq_length} and "
                f"{limit}. Shorten the rows, or give the model more positions."
            )

    @property
    def folder(self):
        """Where the run is kept, checkpoints and links to them: a Path."""
        return Path(self.output_dir) / self.experiment_name

    def build_model(self):
        """The model, with the weights that `seed` draws."""
        return MODELS[type(self.model)](self.model, generator=Generator(self.seed))

    # ---- as dicts, and in files

    def to_dict(self):
        """{section: {field: value}} of what JSON can hold; the section `model` says of which `kind` it is."""
        described = dataclasses.asdict(self)
        kind = next(kind for kind, cls in MODEL_KINDS.items() if type(self.model) is cls)
        return {**described, "model": {"kind": kind, **described["model"]}}

    @classmethod
    def from_dict(cls, described):
        """The Config that `to_dict` describes. Fields left out are as by default; others are refused by name."""
        described = require_table("Config", described)
        model = dict(require_table("model", described.get("model", {})))
        kind = model.pop("kind", None)
        if not isinstance(kind, str) or kind not in MODEL_KINDS:
            raise ValueError(f"Config needs model.kind to be one of {', '.join(MODEL_KINDS)}, but got {kind!r}.")
        training = dict(require_table("training", described.get("training", {})))
        if "failures" in training:
            training["failures"] = build(FailureConfig, training["failures"], "training.failures")
        parts = {
            "model": build(MODEL_KINDS[kind], model, "model"),
            "training": build(TrainingConfig, training, "training"),
            "data": build(DataConfig, described.get("data", {}), "data"),
        }
        return build(cls, {**described, **parts}, "Config")

    def save(self, path):
        """Write the file, whole or not at all: JSON, TOML or YAML, whichever the suffix of `path` names.

        Raises ValueError for another suffix, and ImportError for YAML where PyYAML is missing.
        """
        config_files.write(path, self.to_dict())

    @classmethod
    def load(cls, path):
        """The Config in a file that `save`, or a person, wrote. Raises ValueError, with the path, for what is wrong."""
        described = config_files.read(path)
        try:
            return cls.from_dict(described)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
