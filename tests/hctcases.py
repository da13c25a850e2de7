"""Odd but valid .hct files, and damaged ones, each wrong in one place.

VALID    {name: function that returns the bytes}
DAMAGED  {name: (function that returns the bytes, names of the errors allowed)}

Each hctcases_NOUN.py registers its own.

Damage is done before the checksums are made, so that the check behind them is what a
reader meets, unless the checksum itself is what is wrong.
"""

import hctcases_index  # noqa: F401
import hctcases_literal  # noqa: F401
import hctcases_split  # noqa: F401
import hctcases_tcq  # noqa: F401
import hctcases_tcq_damage  # noqa: F401
from hctcases_file import mixed_image
from hctcases_made import DAMAGED, VALID, floats

__all__ = ["DAMAGED", "VALID", "floats", "mixed_image"]
