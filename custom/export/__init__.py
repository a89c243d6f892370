"""Export the network for OpenVINO: ``python -m custom.export``. Reading an exported folder needs no PyTorch."""
