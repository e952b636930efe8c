"""A full-length training looked at while it goes on: pictures, scores, and whether copying ends it."""

from memcontrol.monitoring.look import Look, columns
from memcontrol.monitoring.monitor import TABLE, Monitor

__all__ = ["TABLE", "Look", "Monitor", "columns"]
