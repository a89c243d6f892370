"""Entry point of ``python -m data_prep``.

It imports nothing at module level: every worker process runs this module again when it starts.
"""

from __future__ import annotations

if __name__ == "__main__":
    from data_prep.cli import main

    main()
