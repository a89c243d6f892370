"""The networks of MCP-MedSAM, one concept per file."""

from custom.networks.build import build_mcp_medsam
from custom.networks.clip import FrozenCLIP, load_clip
from custom.networks.mcp_medsam import MCPMedSAM, MCPMedSAMOutput
from custom.networks.prompt_switches import PromptComponents

__all__ = [
    "FrozenCLIP",
    "MCPMedSAM",
    "MCPMedSAMOutput",
    "PromptComponents",
    "build_mcp_medsam",
    "load_clip",
]
