"""Make ``bulk_model`` importable, in worker processes too."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE, ROOT = str(Path(__file__).parent), str(Path(__file__).parents[2])
sys.path.insert(0, HERE)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (HERE, ROOT, os.getenv("PYTHONPATH"))))
