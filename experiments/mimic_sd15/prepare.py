"""PhysioNet's MIMIC-CXR files to a table that `memcontrol --data` reads.

    python experiments/mimic_sd15/prepare.py --images mimic-cxr-jpg --reports mimic-cxr-reports

Writes frontal.csv beside the images' folder `files`, one row for each frontal image that has a report: path (relative
to the table), text, subject_id, split. The text is the report's impression or, where it has none, its findings.
"""

import argparse
import csv
import gzip
import hashlib
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

SPLIT = "mimic-cxr-2.0.0-split.csv.gz"
METADATA = "mimic-cxr-2.0.0-metadata.csv.gz"
FRONTAL = ("PA", "AP")
SECTIONS = ("IMPRESSION", "FINDINGS")
HEADING = re.compile(r"^[ \t]*([A-Z][A-Z /&,()-]*[A-Z)]):", re.MULTILINE)
SHARES = (("train", 0.8), ("validate", 0.9), ("test", 1.0))
"""Up to which point of 0 to 1, drawn for each subject, an image is in a split."""


def rows(path: Path, *columns: str) -> Iterator[dict[str, str]]:
    """The rows of a gzipped CSV that has these columns."""
    if not path.is_file():
        raise SystemExit(f"no {path}: download it from PhysioNet's mimic-cxr-jpg 2.1.0")
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        missing = [name for name in columns if name not in (reader.fieldnames or ())]
        if missing:
            raise SystemExit(f"{path} has no column {missing[0]}, only {', '.join(reader.fieldnames or ())}")
        yield from reader


def study_folder(subject: str, study: str) -> str:
    """`files/p10/p10000032/s50414267`, as both data sets lay their files out."""
    return f"files/p{subject[:2]}/p{subject}/s{study}"


def prompt(report: str) -> str:
    """The impression on one line, else the findings; empty where a report has neither."""
    marks = list(HEADING.finditer(report))
    ends = [mark.start() for mark in marks[1:]] + [len(report)]
    sections: dict[str, str] = {}
    for mark, end in zip(marks, ends, strict=True):
        # Of two sections of one name, the later belongs to the final report.
        sections[mark[1].strip()] = " ".join(report[mark.end() : end].split())
    for wanted in SECTIONS:
        for name, text in sections.items():
            if wanted in name and text:
                return text
    return ""


def report_reader(reports: Path) -> Callable[[str], str | None]:
    """From a study's path to its report, in PhysioNet's zip or in the folder that was unpacked from it."""
    if reports.suffix == ".zip":
        if not reports.is_file():
            raise SystemExit(f"no {reports}: download it from PhysioNet's mimic-cxr 2.1.0")
        archive = zipfile.ZipFile(reports)
        known = set(archive.namelist())
        return lambda name: archive.read(name).decode("utf-8", "replace") if name in known else None
    if not (reports / "files").is_dir():
        raise SystemExit(f"no folder files in {reports}: give mimic-cxr-reports.zip, or the folder it unpacks to")
    files = {"encoding": "utf-8", "errors": "replace"}
    return lambda name: (reports / name).read_text(**files) if (reports / name).is_file() else None


def drawn_split(subject: str, seed: int) -> str:
    """A split for all images of a subject: 80 % train, 10 % validate, 10 % test of the subjects."""
    digest = hashlib.sha256(f"{seed}-{subject}".encode()).digest()
    place = int.from_bytes(digest[:8], "big") / 2**64
    return next(name for name, end in SHARES if place < end)


def prepared(
    images: Path, report: Callable[[str], str | None], *, split: str, seed: int
) -> tuple[list[dict[str, str]], Counter[str]]:
    """Rows of the table, and how many images were left out for which reason."""
    official = {row["dicom_id"]: row["split"] for row in rows(images / SPLIT, "dicom_id", "split")}
    table, left_out = [], Counter[str]()
    for row in rows(images / METADATA, "dicom_id", "subject_id", "study_id", "ViewPosition"):
        subject, study, name = row["subject_id"], row["study_id"], row["dicom_id"]
        folder = study_folder(subject, study)
        path = f"{folder}/{name}.jpg"
        if row["ViewPosition"] not in FRONTAL:
            left_out["not frontal (PA or AP)"] += 1
        elif not (images / path).is_file():
            left_out["no image file"] += 1
        elif (text := report(f"{folder}.txt")) is None:
            left_out["no report"] += 1
        elif not (found := prompt(text)):
            left_out["neither impression nor findings"] += 1
        elif split == "official" and name not in official:
            left_out["no official split"] += 1
        else:
            chosen = official[name] if split == "official" else drawn_split(subject, seed)
            table.append({"path": path, "text": found, "subject_id": subject, "split": chosen})
    return table, left_out


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images", type=Path, required=True, help="folder of mimic-cxr-jpg, with files/ and the tables"
    )
    parser.add_argument("--reports", type=Path, required=True, help="mimic-cxr-reports.zip, or the folder unpacked")
    parser.add_argument(
        "--split", choices=["drawn", "official"], default="drawn", help="80/10/10 %% of subjects, or PhysioNet's"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the drawn split")
    options = parser.parse_args(arguments)
    table, left_out = prepared(options.images, report_reader(options.reports), split=options.split, seed=options.seed)
    for reason, count in left_out.most_common():
        print(f"left out {count:,}: {reason}")
    if not table:
        raise SystemExit(f"no image of {options.images} could be used: nothing was written")
    path = options.images / "frontal.csv"
    partial = path.with_suffix(".partial")  # an earlier table stays until this one is whole
    with partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["path", "text", "subject_id", "split"])
        writer.writeheader()
        writer.writerows(table)
    partial.replace(path)
    splits = Counter(row["split"] for row in table)
    subjects = len({row["subject_id"] for row in table})
    print(f"{path}: {len(table):,} images of {subjects:,} subjects ({dict(splits)})")


if __name__ == "__main__":
    main()
