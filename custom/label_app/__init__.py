"""MONAI Label app: boxes drawn in 3D Slicer, OHIF or sent by REST become masks, saved labels become better weights."""
