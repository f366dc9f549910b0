"""The style sheet of every page: colours for light and dark, type, tables, figures, a phone and paper."""

from pathlib import Path

SHEET = Path(__file__).with_name("sheet.css").read_text(encoding="utf-8")
"""CSS; what only one kind of page has stands in a sheet beside that page."""
