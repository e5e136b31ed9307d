"""How long a profile of the bundled example takes; the goal is under 10 s.

Run from the root: `python bench/profiling.py`.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import edgeq


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        build = edgeq.export(out=Path(folder) / "build")
        start = time.perf_counter()
        section = edgeq.profile(build.folder).report.profile
        seconds = time.perf_counter() - start
    if section is not None:
        print(f"{section.totals.instructions:,} instructions profiled in {seconds:.1f} s")


if __name__ == "__main__":
    main()
