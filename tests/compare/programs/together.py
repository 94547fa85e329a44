"""`illada compare small`, for a process of a job: a study with a text.

together.py TEXT ROWS FLAGS
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from conftest import study_with_text  # it lies one folder above
from illada.cli.main import main
from illada.recipes.comparison import STUDIES

if __name__ == "__main__":
    text, rows, *flags = sys.argv[1:]
    STUDIES["small"] = lambda scale: study_with_text(Path(text), rows=int(rows))
    sys.exit(main(["compare", "small", *flags]))
