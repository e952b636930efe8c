"""What is released of a training: a pipeline, the tuned tensors, a card and the mask, none of which names a folder."""

from __future__ import annotations

import json
from pathlib import Path

from memcontrol.data.identity import dataset_fingerprint
from memcontrol.mask import FILE_NAME, Mask
from memcontrol.mask_records import ModelIdentity
from memcontrol.methods import Tuning
from memcontrol.model_card import CardFacts, write_card
from memcontrol.releasing.folder import RECORDS
from memcontrol.releasing.notes import privacy_notes
from memcontrol.releasing.outcome import Outcome
from memcontrol.releasing.session import Session
from memcontrol.run import write_atomically
from memcontrol.tuned_tensors import public_mask, save_tuned

RECORDS_NOTE = (
    f"Where a folder `{RECORDS}` lies beside this card, it holds the training's own records: pictures that show "
    "training images beside samples, and paths of the machine. It does not belong in a publication."
)
FOLDER_KEYS = ("_name_or_path", "name_or_path")
"""Under which diffusers and transformers write the folder that something was loaded from."""


def save(session: Session, tuning: Tuning, mask: Mask, base: ModelIdentity, outcome: Outcome) -> None:
    """Save what was asked for; the mask, the card, and what has a file format of its own are always there.

    Raises:
        RunError: the folder cannot be written, or something is in the way there.
    """
    config, unet, last = session.config, session.frozen.unet, outcome.last
    notes = tuple(privacy_notes(session.plan, session.batches, last.number, config.monitor))
    with session.folder.released() as partial, last.averaged():
        if config.save != "tuned":
            with tuning.folded():
                session.frozen.pipeline.save_pretrained(partial, safe_serialization=True)
            without_folders(partial)
        tuning.save(partial)
        if config.save != "pipeline":
            save_tuned(partial, mask=mask, tuning=tuning, unet=unet, base=base)
        facts = _facts(session, base, outcome, (*outcome.notes, *notes, RECORDS_NOTE))
        write_card(partial, mask=mask, facts=facts)
        write_atomically(partial / FILE_NAME, public_mask(mask).to_json())
    for note in notes:
        session.told.note(note)


def without_folders(folder: Path) -> None:
    """Leave out of a saved pipeline's configurations where its parts were loaded from."""
    for path in sorted(folder.rglob("*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.keys() & set(FOLDER_KEYS):
            kept = {key: value for key, value in content.items() if key not in FOLDER_KEYS}
            path.write_text(json.dumps(kept, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _facts(session: Session, base: ModelIdentity, outcome: Outcome, notes: tuple[str, ...]) -> CardFacts:
    config, look = session.config, outcome.look
    return CardFacts(
        base_model=base.id,
        data_name=session.dataset.name,
        data_n=len(session.dataset.training),
        data_sha256=dataset_fingerprint(session.dataset),
        steps=outcome.number,
        learning_rate=config.learning_rate or outcome.last.learning_rate,
        seed=config.seed,
        batch=config.tuning.batch,
        base_weights=base.weights,
        mitigations=config.mitigations or (),
        monitored=look.scores if look else {},
        monitored_step=look.step if look else None,
        notes=notes,
    )
