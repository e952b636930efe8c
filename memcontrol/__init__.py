"""Find which parameters of a diffusion model to fine-tune, so that it learns the images and copies little."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memcontrol.auditing.config import AuditConfig as AuditConfig
    from memcontrol.auditing.examining import audit as audit
    from memcontrol.comparison.comparing import compare as compare
    from memcontrol.comparison.config import ComparisonConfig as ComparisonConfig
    from memcontrol.config import DataConfig as DataConfig
    from memcontrol.config import RunConfig as RunConfig
    from memcontrol.config import TuningConfig as TuningConfig
    from memcontrol.confirming.confirming import confirm as confirm
    from memcontrol.exporting import picked_masks as picked_masks
    from memcontrol.mask import Mask as Mask
    from memcontrol.methods.applying import fold as fold
    from memcontrol.releasing import finetune as finetune
    from memcontrol.space import SearchSpace as SearchSpace
    from memcontrol.study.search import search as search
    from memcontrol.transferring.config import TransferConfig as TransferConfig
    from memcontrol.transferring.transfer import transfer as transfer
    from memcontrol.tuned_tensors import load_tuned as load_tuned

_HOMES = {
    "AuditConfig": "memcontrol.auditing.config",
    "ComparisonConfig": "memcontrol.comparison.config",
    "DataConfig": "memcontrol.config",
    "Mask": "memcontrol.mask",
    "RunConfig": "memcontrol.config",
    "SearchSpace": "memcontrol.space",
    "TransferConfig": "memcontrol.transferring.config",
    "TuningConfig": "memcontrol.config",
    "audit": "memcontrol.auditing.examining",
    "compare": "memcontrol.comparison.comparing",
    "confirm": "memcontrol.confirming.confirming",
    "finetune": "memcontrol.releasing",
    "fold": "memcontrol.methods.applying",
    "load_tuned": "memcontrol.tuned_tensors",
    "picked_masks": "memcontrol.exporting",
    "search": "memcontrol.study.search",
    "transfer": "memcontrol.transferring.transfer",
}
__all__ = [
    "AuditConfig",
    "ComparisonConfig",
    "DataConfig",
    "Mask",
    "RunConfig",
    "SearchSpace",
    "TransferConfig",
    "TuningConfig",
    "audit",
    "compare",
    "confirm",
    "finetune",
    "fold",
    "load_tuned",
    "picked_masks",
    "search",
    "transfer",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'memcontrol' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
