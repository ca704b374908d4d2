"""How long `import llm_os` and `llm-os --help` take: medians of interleaved rounds, beside a bare interpreter.

    python benchmarks/startup/measure.py [--rounds 15] [--json]

Claims: `import llm_os` adds under 150 ms to a bare interpreter; `llm-os --help` ends in under 300 ms.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

CASES = {
    "bare": ["-c", "pass"],
    "import": ["-c", "import llm_os"],
    "names": ["-c", "import llm_os\nfor name in llm_os.__all__: getattr(llm_os, name)"],
    "help": ["-m", "llm_os.cli.main", "--help"],
    "pydantic": ["-c", "import pydantic"],
}


def once(arguments: list[str]) -> float:
    """Milliseconds from the start of a process to its end."""
    before = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - before) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    times: dict[str, list[float]] = {name: [] for name in CASES}
    for arguments in CASES.values():  # once unmeasured: byte code and page cache
        once(arguments)
    for _ in range(options.rounds):
        for name, arguments in CASES.items():
            times[name].append(once(arguments))
    rows = {
        name: {"median_ms": statistics.median(seen), "least_ms": min(seen), "most_ms": max(seen)}
        for name, seen in times.items()
    }
    added = rows["import"]["median_ms"] - rows["bare"]["median_ms"]
    if options.json:
        print(json.dumps({"rounds": options.rounds, "cases": rows, "import_adds_ms": added}, indent=1))
        return
    for name, row in rows.items():
        print(f"{name:10} {row['median_ms']:7.1f} ms   ({row['least_ms']:.1f} to {row['most_ms']:.1f})")
    print(f"import llm_os adds {added:.1f} ms to a bare interpreter (claim: under 150)")
    print(f"llm-os --help takes {rows['help']['median_ms']:.1f} ms (claim: under 300)")


if __name__ == "__main__":
    main()
