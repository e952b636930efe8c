"""From a mask to a released model: trained at full length, watched, resumable, and saved for stock diffusers."""

from memcontrol.releasing.config import FinetuneConfig, mask_mitigations, mask_tuning
from memcontrol.releasing.folder import ReleaseFolder
from memcontrol.releasing.release import finetune, release
from memcontrol.releasing.session import Told

__all__ = ["FinetuneConfig", "ReleaseFolder", "Told", "finetune", "mask_mitigations", "mask_tuning", "release"]
