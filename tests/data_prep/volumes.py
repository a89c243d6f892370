"""Volumes of several formats, written by the libraries of their own communities."""

import nibabel as nib
import numpy as np
import SimpleITK as sitk

_ITK = (".nrrd", ".nhdr", ".mha", ".mhd")
_NIBABEL = {".mgz": nib.MGHImage, ".mgh": nib.MGHImage, ".img": nib.Nifti1Pair}
_LPS = np.diag([-1, -1, 1])


def save_volume(path, array, affine):
    """Write an IxJxK array on a grid without shear; its ending gives the format."""
    if not path.name.endswith(_ITK):
        nib.save(_NIBABEL.get(path.suffix, nib.Nifti1Image)(array, affine), path)
        return
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image = sitk.GetImageFromArray(array.T)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((_LPS @ affine[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin((_LPS @ affine[:3, 3]).tolist())
    sitk.WriteImage(image, str(path))
