"""The pages of the documents: their paths, and their texts by path from the repository's root."""

from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = (".", "experiments", "docs", "docs/reference")
PAGES = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text("utf-8") for path in PAGES}
