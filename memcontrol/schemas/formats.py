"""The formats by name: what each is, where it lies, and its JSON schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from memcontrol.errors import MemControlError, nearest_names


@dataclass(frozen=True)
class Format:
    """One kind of file, or of JSON that a command prints.

    Attributes:
        name: by which `memcontrol schema` knows it.
        what: one sentence.
        where: it lies, or what prints it.
        checked: what the program checks besides the schema, or takes besides it; empty where that is all.
        kind: the class that it is read or written by; imported when called, so that listing formats is quick.
    """

    name: str
    what: str
    where: str
    kind: Callable[[], Any]
    checked: str = ""

    def schema(self) -> dict[str, Any]:
        """The JSON schema, draft 2020-12."""
        from memcontrol.schemas.described import schema_of

        return schema_of(self.kind(), f"memcontrol {self.name}")


def _mask() -> Any:
    from memcontrol.mask import Mask

    return Mask


def _space() -> Any:
    from memcontrol.space import SearchSpace

    return SearchSpace


def _config() -> Any:
    from memcontrol.config import RunConfig

    return RunConfig


def _finetune_config() -> Any:
    from memcontrol.releasing.config import FinetuneConfig

    return FinetuneConfig


def _compare_config() -> Any:
    from memcontrol.comparison.config import ComparisonConfig

    return ComparisonConfig


def _transfer_config() -> Any:
    from memcontrol.transferring.config import TransferConfig

    return TransferConfig


def _score() -> Any:
    from memcontrol.score import Score

    return Score


def _front() -> Any:
    from memcontrol.run_documents import FrontDocument

    return FrontDocument


def _confirmation() -> Any:
    from memcontrol.run_documents import ConfirmationDocument

    return ConfirmationDocument


def _comparison() -> Any:
    from memcontrol.schemas.tables import ComparisonDocument

    return ComparisonDocument


def _transfer() -> Any:
    from memcontrol.schemas.tables import TransferDocument

    return TransferDocument


def _audit() -> Any:
    from memcontrol.auditing.document import AuditDocument

    return AuditDocument


def _doctor() -> Any:
    from memcontrol.installation.diagnosis import Diagnosis

    return Diagnosis


def _plan() -> Any:
    from memcontrol.schemas.printed import PlanDocument

    return PlanDocument


def _inspection() -> Any:
    from memcontrol.schemas.printed import InspectionDocument

    return InspectionDocument


def _closing() -> Any:
    from memcontrol.schemas.printed import ClosingDocument

    return ClosingDocument


_YAML = "Numbers may also be written as text, since YAML reads `1e-3` without a point as text. "
_LISTED = (
    Format(
        "mask",
        "Which parameter groups of a model train, at what rate, and the scores that came of it.",
        "`masks/*.json` of a run, what `export` and `import` write, and `mask.json` of a fine-tuned model",
        _mask,
        "No parameter is in two groups, `trainable.numel` is the sum over the groups that are on, and `learning_rate` "
        "is null where no group is on, and only there.",
    ),
    Format(
        "space",
        "A search space: which parameters may be switched on, how they are grouped and tuned.",
        "`search_spaces/*.yaml`, and the YAML file given to `--space`",
        _space,
        _YAML + "`rank` and `alpha` belong to `lora` alone, which needs a rank; `low` is below `high`.",
    ),
    Format(
        "config",
        "Every setting of a search.",
        "`config.yaml` of a run, and the YAML file given to `search --config`",
        _config,
        _YAML + "Names of scores, mitigations, models and spaces are checked when the search begins.",
    ),
    Format(
        "finetune-config",
        "Every setting of a full-length training.",
        "`training/config.yaml` of a fine-tuned model, and the YAML file given to `finetune --config`",
        _finetune_config,
        _YAML + "Stopping early needs `monitor.every`, and `copy_gap` among the monitor's measures.",
    ),
    Format(
        "compare-config",
        "Every setting of a comparison.",
        "`config.yaml` of a comparison, and the YAML file given to `compare --config`",
        _compare_config,
        _YAML + "A grid has methods or masks, and seeds differ.",
    ),
    Format(
        "transfer-config",
        "Every setting of a transfer.",
        "`config.yaml` of a transfer, and the YAML file given to `transfer --config`",
        _transfer_config,
        _YAML + "Rates are of `full` alone, and seeds differ.",
    ),
    Format("score", "One measured number, its interval and its direction.", "in most of the other files", _score),
    Format(
        "front",
        "The Pareto front of a search, and what its masks are compared with.",
        "`front.json` of a run",
        _front,
    ),
    Format(
        "confirmation",
        "The trainings that confirm a front.",
        "`confirmation/confirmation.json` of a run",
        _confirmation,
    ),
    Format("comparison", "A table of methods and masks under mitigations.", "`comparison.json`", _comparison),
    Format("transfer", "Masks on other data or another model.", "`transfer.json`", _transfer),
    Format("audit", "What an audit found.", "`audit.json`", _audit),
    Format("plan", "What a command would do here, and what it needs.", "printed by `--dry-run --json`", _plan),
    Format("inspection", "A search space's groups on a model.", "printed by `inspect --json`", _inspection),
    Format(
        "closing",
        "What a search found, beside full fine-tuning.",
        "the last line that `search --json` and `confirm --json` print, with a key `event`: `result`",
        _closing,
    ),
    Format("doctor", "What this machine has.", "printed by `doctor --json`", _doctor),
)
FORMATS: Mapping[str, Format] = {one.name: one for one in _LISTED}
"""Every format, by its name."""


def format_named(name: str) -> Format:
    """The format of that name.

    Raises:
        MemControlError: there is none.
    """
    if name not in FORMATS:
        raise MemControlError(f"no format {name!r}: {nearest_names(name, FORMATS)}")
    return FORMATS[name]
