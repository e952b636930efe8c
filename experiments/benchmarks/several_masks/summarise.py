"""Tables of what `measure.py` found, and what one pass would save of a whole trial.

    python experiments/benchmarks/several_masks/summarise.py

Of a trial, training changes by its steps' arithmetic and sampling by its calls of the U-Net; the rest stays: optimizer,
batches, decoder, scores. Prints the README's tables as Markdown.
"""

import argparse
import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ALONE = "alone"
Line = dict[str, Any]


class Found:
    """All lines, by what they are of.

    Attributes:
        reading: which milliseconds of a line count.
    """

    def __init__(self, file: Path, reading: str) -> None:
        self.lines: list[Line] = [json.loads(text) for text in file.read_text().splitlines()]
        self.reading = reading

    def part(self, part: str, **wanted: object) -> list[Line]:
        """Lines of a part that say this."""
        return [line for line in self.lines if line["part"] == part and wanted.items() <= line.items()]

    def ms(self, part: str, **wanted: object) -> float:
        """Milliseconds of the one such line; of several, the least."""
        return min(float(line[self.reading]) for line in self.part(part, **wanted))

    def ways(self, part: str) -> tuple[list[str], list[int], list[str]]:
        """Kinds of masks, counts and ways, in their order."""
        lines = [line for line in self.part(part) if line["way"] != ALONE]
        return tuple(list(dict.fromkeys(line[key] for line in lines)) for key in ("groups", "k", "way"))  # type: ignore[return-value]


def costs(found: Found, part: str) -> None:
    """Milliseconds of a candidate by way and count."""
    kinds, counts, ways = found.ways(part)
    print(f"\n{part}: ms of a candidate\n\n| groups | way | " + " | ".join(f"K = {count}" for count in counts) + " |")
    print("|---" * (len(counts) + 2) + "|")
    for kind in kinds:
        alone = found.ms(part, way=ALONE, groups=kind) if part == "step" else found.ms(part, way=ALONE, images=64)
        print(f"| {kind} | {ALONE} | {alone:.1f}" + " |" * len(counts))
        for way in ways:
            cells = [found.ms(part, groups=kind, way=way, k=count) for count in counts]
            print(f"| | {way} | " + " | ".join(f"{cell:.1f}" for cell in cells) + " |")
    if part == "sampling":
        larger = [f"{line['images']} a call {line[found.reading]:.1f}" for line in found.part(part, way=ALONE)]
        print("\none candidate, ms of 64 images: " + ", ".join(larger))


def gradients(found: Found) -> None:
    """Agreement, and memory."""
    print("\n| way | largest difference of gradients | MB kept for the backward pass, K = 1 | K = 8, a candidate |")
    print("|---|---|---|---|")
    for way in found.ways("step")[2]:
        lines = found.part("step", way=way)
        kept = [max(line["saved_mb"] for line in lines if line["k"] == count) for count in (1, 8)]
        print(f"| {way} | {max(line['difference'] for line in lines):.1e} | {kept[0]:.1f} | {kept[1]:.1f} |")
    alone = max(line["saved_mb"] for line in found.part("step", way=ALONE))
    print(f"| {ALONE} | | {alone:.1f} | |")


def convolutions(found: Found) -> None:
    counts = list(dict.fromkeys(line["k"] for line in found.part("convolution")))
    print("\n| channels, side | way | " + " | ".join(f"K = {count}, ms" for count in counts) + " |")
    print("|---" * (len(counts) + 2) + "|")
    for channels, side in dict.fromkeys((line["channels"], line["side"]) for line in found.part("convolution")):
        for way in ("in turn", "grouped"):
            lines = found.part("convolution", channels=channels, side=side, way=way)
            print(
                f"| {channels}, {side} | {way} | " + " | ".join(f"{line[found.reading]:.2f}" for line in lines) + " |"
            )


def trials(found: Found) -> None:
    """A trial by phase, and what it would be with the best way of each."""
    counts = found.ways("step")[1]
    print("\n| groups | tuning, of which arithmetic | U-Net in sampling | decoder | scores | trial, s | ", end="")
    print(" | ".join(f"K = {count}" for count in counts) + " | larger sampling batch alone |")
    print("|---" * (len(counts) + 7) + "|")
    for trial in found.part("trial"):
        kind, parts = trial["groups"], [trial[f"{name}_s"] for name in ("tune", "sample", "decode", "score")]
        alone = found.ms("step", way=ALONE, groups=kind)
        arithmetic, calls = trial["steps"] * alone / 1000, found.ms("sampling", way=ALONE, images=64)
        sampled = kind if found.part("sampling", groups=kind) else "all"
        factors = []
        for count in counts:
            step = found.ms("step", groups=kind, k=count)
            call = found.ms("sampling", groups=sampled, k=count)
            # One after the other stays possible.
            saved = max(0.0, trial["steps"] * (alone - step) / 1000) + parts[1] * max(0.0, 1 - call / calls)
            factors.append(sum(parts) / (sum(parts) - saved))
        larger = parts[1] * max(0.0, 1 - found.ms("sampling", way=ALONE) / calls)
        cells = " | ".join(f"{seconds:.1f}" for seconds in parts[1:])
        print(f"| {kind} | {parts[0]:.1f}, {arithmetic:.1f} | {cells} | {sum(parts):.1f} | ", end="")
        print(" | ".join(f"{factor:.2f}" for factor in factors), end="")
        print(f" | {sum(parts) / (sum(parts) - larger):.2f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results.jsonl")
    parser.add_argument("--least", action="store_true", help="the least readings instead of medians, on busy cores")
    options = parser.parse_args()
    found = Found(options.results, "least_ms" if options.least else "cpu_ms")
    costs(found, "step")
    gradients(found)
    if found.part("sampling"):
        costs(found, "sampling")
    if found.part("convolution"):
        convolutions(found)
    if found.part("sampling") and found.part("trial"):
        trials(found)


if __name__ == "__main__":
    main()
