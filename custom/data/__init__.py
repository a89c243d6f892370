"""Prepared data (``prepared``), the data sets over it (``datasets``), and the balanced sampler (``sampler``).

The modules are imported by their own names: reading an index must not wait for MONAI and torch.
"""
