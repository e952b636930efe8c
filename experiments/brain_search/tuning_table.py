"""tuning.jsonl as one Markdown table: fd and copy_gap of every training under each guidance.

python experiments/brain_search/tuning_table.py
"""

import json
from pathlib import Path

HERE = Path(__file__).parent
FD, GAP = "fd@efficientnet-lite0", "copy_gap@pixels"


def main() -> None:
    rows = [json.loads(line) for line in (HERE / "tuning.jsonl").read_text().splitlines()]
    guidances = sorted({row["guidance"] for row in rows})
    scored = {
        (row["seed"], row["work"], row["guidance"]): tuple(row["scores"][name]["value"] for name in (FD, GAP))
        for row in rows
    }
    works = list(dict.fromkeys((row["seed"], row["work"]) for row in rows))
    print("| seed | training |", " | ".join(f"guidance {g:g}" for g in guidances), "|")
    print("|---|---|" + "---|" * len(guidances))
    for seed, work in works:
        cells = [scored.get((seed, work, g)) for g in guidances]
        print(f"| {seed} | {work} |", " | ".join("" if c is None else f"{c[0]:.1f} / {c[1]:.4f}" for c in cells), "|")
    for other in guidances[1:]:
        pairs = [
            (scored[seed, work, guidances[0]], scored[seed, work, other]) for seed, work in works if "full" in work
        ]
        for position, name in enumerate((FD, GAP)):
            lower = sum(first[position] < second[position] for first, second in pairs)
            print(
                f"{name}: guidance {guidances[0]:g} below {other:g} in {lower} of {len(pairs)} trainings of everything"
            )


if __name__ == "__main__":
    main()
