"""Where the example is found, which the tests of whole programs run."""

import sys
from pathlib import Path

# the example is a program, not a part of the distribution: it is found where it is run from
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
