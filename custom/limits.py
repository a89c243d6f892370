"""The limits on what a file may declare or unpack to: a few bytes can ask for any amount of memory.

Every limit is far above real images and can be set by an environment variable.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from os import PathLike

from custom.errors import InputError


@dataclass(frozen=True)
class Limit:
    """An upper limit on a number.

    Attributes:
        variable: environment variable that sets the limit, read at every use.
        default: its value if the variable is not set.
        unit: what is counted.
    """

    variable: str
    default: int
    unit: str

    @property
    def value(self) -> int:
        """The current limit.

        Raises:
            InputError: the value of the variable is not a whole number of at least 1.
        """
        text = os.environ.get(self.variable, str(self.default))
        if not text.isdecimal() or int(text) < 1:
            raise InputError("environment", self.variable, repr(text), f"a whole number from 1 up: {self.unit}")
        return int(text)

    def check(self, count: int, source: str | PathLike[str], field: str, *, found: object = None) -> None:
        """Check a number that a file declares.

        Args:
            count: the number.
            source: the file.
            field: the part of the file that declares it.
            found: the value as the file has it, for the error; by default the count.

        Raises:
            InputError: the count is above the limit; the error names the variable that raises it.
        """
        if count > self.value:
            text = f"{count} {self.unit}"
            allowed = f"at most {self.value}; the environment variable {self.variable} raises it"
            raise InputError(source, field, text if found is None else f"{found} ({text})", allowed)


PIXELS = Limit("MCP_MEDSAM_MAX_PIXELS", 89_478_485, "pixels in one slice")  # Pillow's own limit for decompression bombs
SLICES = Limit("MCP_MEDSAM_MAX_SLICES", 2**18, "slices or frames")
BYTES = Limit("MCP_MEDSAM_MAX_BYTES", 2**32, "bytes in memory")
JSON_BYTES = Limit("MCP_MEDSAM_MAX_JSON_BYTES", 2**29, "bytes of JSON")  # in memory up to about 20 times as much
OUTLINE = Limit("MCP_MEDSAM_MAX_OUTLINE", 10**7, "pixels along an outline")

#: The largest factor by which a deflate stream can grow.
DEFLATE_RATIO = 1032
