"""The networks of MCP-MedSAM, one concept per file."""

from custom.lite_medsam import lite_medsam_path
from custom.networks.checkpoint import LoadReport, load_checkpoint
from custom.networks.clip import FrozenCLIP, load_clip
from custom.networks.load_weights import start_network
from custom.networks.mcp_medsam import MCPMedSAM, MCPMedSAMOutput
from custom.networks.prompt_switches import PromptComponents

__all__ = [
    "FrozenCLIP",
    "LoadReport",
    "MCPMedSAM",
    "MCPMedSAMOutput",
    "PromptComponents",
    "lite_medsam_path",
    "load_checkpoint",
    "load_clip",
    "start_network",
]
