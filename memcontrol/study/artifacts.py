"""Where trials' pictures are kept besides the run folder, so that hosts without a common folder share them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.artifacts import FileSystemArtifactStore, upload_artifact

from memcontrol.errors import MemControlError, MissingPackageError, RunError, reason

if TYPE_CHECKING:
    from optuna.artifacts._protocol import ArtifactStore

BUCKET = "s3://"


def artifact_store(place: str) -> ArtifactStore:
    """Optuna's store of a folder, which is made, or of `s3://BUCKET`, whose access is boto3's to find.

    Raises:
        MemControlError: a place inside a bucket, which Optuna's store does not know.
        MissingPackageError: no boto3.
        RunError: the folder cannot be made.
    """
    if not place.startswith(BUCKET):
        try:
            Path(place).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"--artifacts {place}: {reason(error)}; name a folder that can be written") from error
        return FileSystemArtifactStore(place)
    bucket = place.removeprefix(BUCKET).rstrip("/")
    if not bucket or "/" in bucket:
        raise MemControlError(f"--artifacts {place}: expected {BUCKET}BUCKET alone")
    try:
        from optuna.artifacts import Boto3ArtifactStore

        return Boto3ArtifactStore(bucket)
    except ImportError as error:
        raise MissingPackageError(
            f'--artifacts {place} needs boto3: pip install -c constraints.txt -e ".[s3]"'
        ) from error


def upload(file: Path, trial: optuna.Trial, place: str) -> None:
    """Keep a file with a trial; Optuna's dashboard shows it there."""
    upload_artifact(artifact_store=artifact_store(place), file_path=str(file), study_or_trial=trial)
