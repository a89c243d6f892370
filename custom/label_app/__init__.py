"""MONAI Label app: boxes from 3D Slicer, OHIF or REST become masks; saved labels become better weights."""
