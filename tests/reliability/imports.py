"""Imported once, before the processes of the trials start: slow imports that the commands need."""

import custom.engines
import custom.handlers
import custom.inference.monai_inferer
import custom.package
import custom.segment  # noqa: F401
import data_prep.cli  # noqa: F401
import tests.reliability.commands  # noqa: F401
