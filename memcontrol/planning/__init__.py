"""Dry runs: whether a command could start here, and what memory and time it would take."""

from memcontrol.planning.commands import plan_comparison, plan_finetune, plan_search, plan_transfer
from memcontrol.planning.document import Need, Plan, Work

__all__ = ["Need", "Plan", "Work", "plan_comparison", "plan_finetune", "plan_search", "plan_transfer"]
