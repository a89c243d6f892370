"""Training loss of MCP-MedSAM."""

from custom.losses.mcp_loss import MCPMedSAMLoss

__all__ = ["MCPMedSAMLoss"]
