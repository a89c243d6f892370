"""Training loss of MCP-MedSAM."""

from custom.losses.mcp_loss import MCPMedSAMLoss
from custom.losses.passes import MeanOverPasses

__all__ = ["MCPMedSAMLoss", "MeanOverPasses"]
