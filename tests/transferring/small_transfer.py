"""A transfer some seconds long, and mask files of the default space."""

from memcontrol.groups import parameter_groups
from memcontrol.mask import Mask
from memcontrol.mask_records import ModelIdentity
from memcontrol.space import load_space
from memcontrol.transferring.config import TransferConfig

SMALL = {
    "data": {"source": "faces", "train_size": 8, "fidelity": 24, "copying": 64, "confirmation": 8},
    "seeds": [1, 2],
    "random": 2,
    "full_points": [0.5, 1.0],
    "tuning": {"steps": 2, "batch": 4},
    "sampling": {"images": 10, "steps": 2},
    "scoring": {
        "objectives": ["fd@pixels", "copy_gap@pixels"],
        "reported": ["amd@pixels"],
        "components": 4,
        "permutations": 10,
    },
}


def small(**changes):
    """`SMALL` with other values at its top level."""
    return TransferConfig.model_validate(SMALL | changes)


def stage_kinds_mask(frozen, path, *on, rate=1e-3, provenance=None):
    """A saved mask of the default space on a loaded model."""
    space = load_space("stage-kinds")
    groups = parameter_groups(space, frozen.unet)
    mask = Mask.build(
        space,
        groups,
        [group.name in on for group in groups],
        model=ModelIdentity.of(frozen.unet, "tiny"),
        unet_numel=sum(p.numel() for p in frozen.unet.parameters()),
        learning_rate=rate,
        provenance=provenance,
    )
    return mask.save(path)
