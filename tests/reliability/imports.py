"""Imported once, where the processes of the trials begin: what the commands need and takes seconds to import."""

import custom.engines
import custom.handlers
import custom.inference.monai_inferer
import custom.package
import custom.segment  # noqa: F401
import data_prep.cli  # noqa: F401
import tests.reliability.commands  # noqa: F401
