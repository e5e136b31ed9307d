"""The picture in the README: what `edgeq export --target mcu` prints, as SVG.

    python bench/picture.py docs/export.svg

The export is a real one, and the drawing is what the terminal shows of its report.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.text import Text

import edgeq
from edgeq import views

WIDTH = 88
COMMAND = "edgeq export --target mcu"
FONT_FACE = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # it names a server
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def main() -> None:
    picture = Path(sys.argv[1]).absolute()
    with tempfile.TemporaryDirectory() as folder, open(os.devnull, "w", encoding="utf-8") as null:
        os.chdir(folder)
        build = edgeq.export(target="mcu")
        console = Console(record=True, width=WIDTH, file=null, force_terminal=True, highlight=False)
        console.print(Text.assemble(("$ ", "dim"), COMMAND, "\n"))
        console.print(views.export_view(build.report))
        console.print(f"[bold]written to[/] {build.folder.as_posix()}")
        os.chdir(picture.parent)
    svg = console.export_svg(title="edgeq", unique_id="edgeq")
    svg = FONT_FACE.sub("", svg).replace("Fira Code, monospace", FONTS)
    picture.write_text(svg, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
