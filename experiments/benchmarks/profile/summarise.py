"""Table of what `measure.py` found: shares of a trial's CPU time, arithmetic of the networks and everything else.

    python experiments/benchmarks/profile/summarise.py

Prints the README's tables as Markdown and writes results.json. The share of arithmetic is that of `ARITHMETIC`, the
Python around their operations included: `--label` chooses among runs.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

ARITHMETIC = ("U-Net forward", "U-Net backward", "decoder", "EfficientNet")
NAMED = {"tuning and sampling loop": "loop", "else": "between trials"}


def lines(file: Path) -> list[dict[str, Any]]:
    """What is there, without a line that an interruption cut off."""
    return [json.loads(line) for line in file.read_text().split("\n")[:-1]] if file.exists() else []


def parts(line: dict[str, Any]) -> dict[str, float]:
    """Seconds by part, arithmetic told apart by what it was for."""
    spent: dict[str, float] = defaultdict(float)
    for path, seconds in line["cpu_s"].items():
        names = path.split(" > ")
        name = names[-1]
        if "tracing" in names:
            name = "tracing"  # the U-Net runs there, too, but not for the trial
        elif name == "U-Net forward" and "membership" in names:
            name = "U-Net forward, membership"
        spent[NAMED.get(name, name)] += seconds
    return dict(spent)


def is_arithmetic(part: str) -> bool:
    return part.partition(",")[0] in ARITHMETIC


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--label", default="")
    parser.add_argument("--runs", type=Path, default=HERE / "runs.jsonl")
    options = parser.parse_args()
    found = [line for line in lines(options.runs) if line["label"] == options.label and line["error"] is None]
    results: list[dict[str, Any]] = []
    for line in sorted(found, key=lambda line: -int(line["numel"])):
        spent = parts(line)
        total = sum(spent.values())
        share = sum(seconds for part, seconds in spent.items() if is_arithmetic(part)) / total
        row = {"mask": line["mask"], "numel": line["numel"], "steps": line["steps"], "images": line["images"]}
        results.append(row | {"cpu_s": round(total, 2), "arithmetic": round(share, 4), "parts": spent})
    (options.runs.parent / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    print("| mask | parameters | CPU s | arithmetic |\n|---|---|---|---|")
    for row in results:
        print(f"| `{row['mask']}` | {row['numel']:,} | {row['cpu_s']} | {row['arithmetic']:.1%} |")
    print("\n| part | " + " | ".join(f"`{row['mask']}`, s" for row in results) + " |")
    print("|---" * (len(results) + 1) + "|")
    names = {part: None for row in results for part in row["parts"]}
    for part in sorted(names, key=lambda part: (not is_arithmetic(part), -results[0]["parts"].get(part, 0.0))):
        print(f"| {part} | " + " | ".join(f"{row['parts'].get(part, 0.0):.2f}" for row in results) + " |")


if __name__ == "__main__":
    main()
