"""What is installed on this machine: packages, devices, data, weights and folders, looked at without loading torch."""

from memcontrol.installation.diagnosis import Diagnosis, diagnose

__all__ = ["Diagnosis", "diagnose"]
