"""Set a page of docs/results as a PDF: `python docs/make_paper.py [PAGE.md] [PAPER.pdf]`, which `make paper` calls.

pandoc reads the page, Typst sets it; both come as wheels that are pinned in docs/paper/requirements.txt.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pypandoc
import typst

DOCS = Path(__file__).parent
PAGE, PAPERS = DOCS / "results" / "what-we-know.md", DOCS.parent / "artifacts"
STYLE = DOCS / "paper" / "style.typ"
PICTURE = re.compile(r'<img src="(?P<file>[^"]+)" width="(?P<width>\d+)%" alt="(?P<words>[^"]*)">')
LINK = re.compile(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)[^)]*\)")  # to a file beside the page, which a PDF has not


def paper(page: Path, pdf: Path) -> Path:
    """Write `page` as a PDF, pictures with their alternative text as caption, and return its path."""
    text = LINK.sub(r"\1", page.read_text(encoding="utf-8"))
    text = PICTURE.sub(lambda found: f"\n\n![{found['words']}]({found['file']}){{width={found['width']}%}}\n\n", text)
    body = pypandoc.convert_text(text, "typst", format="markdown-citations+pipe_tables", extra_args=["--columns=10000"])
    source = page.with_name(f".{page.stem}.typ")  # beside the page, so that its pictures are found
    pdf.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.write_text(STYLE.read_text(encoding="utf-8") + body, encoding="utf-8")
        typst.compile(source, output=pdf, root=DOCS)
    finally:
        source.unlink(missing_ok=True)
    return pdf


if __name__ == "__main__":
    page = Path(sys.argv[1]) if len(sys.argv) > 1 else PAGE
    pdf = Path(sys.argv[2]) if len(sys.argv) > 2 else PAPERS / f"{page.stem}.pdf"
    sys.stdout.write(f"{paper(page, pdf)}\n")
