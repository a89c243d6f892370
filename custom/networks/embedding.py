"""What every image encoder returns, and prompt encoder and decoder take: Bx256x64x64, as in SAM."""

from __future__ import annotations

EMBEDDING_SIZE = 64
EMBEDDING_WIDTH = 256
