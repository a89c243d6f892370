"""How much a file may declare or unpack to, in one place: a few bytes can ask for any amount of memory.

Every limit is far above real images and can be set by an environment variable.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from os import PathLike

from custom.errors import InputError


@dataclass(frozen=True)
class Limit:
    """The largest number of something.

    Attributes:
        variable: environment variable that sets it, read whenever the limit is asked for.
        default: its value where the variable is not set.
        unit: what is counted.
    """

    variable: str
    default: int
    unit: str

    @property
    def value(self) -> int:
        """The limit in force.

        Raises:
            InputError: the variable holds no whole number from 1 up.
        """
        text = os.environ.get(self.variable, str(self.default))
        if not text.isdecimal() or int(text) < 1:
            raise InputError("environment", self.variable, repr(text), f"a whole number from 1 up: {self.unit}")
        return int(text)

    def check(self, count: int, source: str | PathLike[str], field: str, *, found: object = None) -> None:
        """Check what a file asks for.

        Args:
            count: how much.
            source: the file.
            field: the part of it that asks.
            found: what stands there, for the error; by default the count.

        Raises:
            InputError: it is too much; the error names the variable to raise.
        """
        if count > self.value:
            told = f"{count} {self.unit}"
            allowed = f"at most {self.value}; the environment variable {self.variable} raises it"
            raise InputError(source, field, told if found is None else f"{found} ({told})", allowed)


PIXELS = Limit("MCP_MEDSAM_MAX_PIXELS", 89_478_485, "pixels in one slice")  # where Pillow, too, suspects a bomb
SLICES = Limit("MCP_MEDSAM_MAX_SLICES", 2**18, "slices or frames")
BYTES = Limit("MCP_MEDSAM_MAX_BYTES", 2**32, "bytes in memory")
JSON_BYTES = Limit("MCP_MEDSAM_MAX_JSON_BYTES", 2**29, "bytes of JSON")  # becomes up to some 20 times as much
OUTLINE = Limit("MCP_MEDSAM_MAX_OUTLINE", 10**7, "pixels along an outline")

#: No deflate stream unpacks to more times its size.
DEFLATE_RATIO = 1032
