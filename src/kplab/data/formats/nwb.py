"""NWB with training data of poses (the extension ndx-pose), as sleap-io and others write it.

What a file states is that of SLEAP: pixel indices from 0, every point that has a position is visible, no tracks. A file is
read as plain HDF5 in another process; writing needs sleap-io, the extra ``formats`` of kplab.

Source: NWB extension ndx-pose (PoseTraining, Skeletons); sleap-io, ``sleap_io/io/nwb_annotations.py``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from kplab.data.formats import sleap
from kplab.data.formats._files import copy_images, hdf5_names
from kplab.data.formats._slp_file import load
from kplab.data.holds import Holds
from kplab.data.naming import Names
from kplab.errors import DataError
from kplab.structures.labels import Labels
from kplab.structures.skeleton import Skeleton

HOLDS = Holds(empty=False, precision=1e-9)
TABLES = "kplab.data.formats._nwb:tables"


def recognise(path: Path) -> bool:
    """Whether a file is NWB."""
    return path.suffix == ".nwb" and path.is_file() and "specifications" in hdf5_names(path)


def names(path: Path) -> Names:
    """Nodes and edges of the file's first skeleton."""
    skeletons = load(path, TABLES).skeletons
    if not skeletons:
        raise DataError(f"{path}: has no skeleton of ndx-pose. Choose a file with training data of poses.")
    return skeletons[0]


def read(
    labels: str | Path,
    skeleton: Skeleton,
    frames_to: str | Path,
    video: str | Path | Sequence[str | Path] | None = None,
    box_margin: float = 1.2,
    rename: Mapping[str, str] | None = None,
    images: str | Path | None = None,
) -> Labels:
    """Read the training frames of a file.

    Args:
        labels: the ``.nwb`` file.
        skeleton: its names must be the nodes of the file's skeleton, in any order.
        frames_to: folder for the videos' frames, see ``data.video``; only frames that are read are written.
        video: the video, or one for each video of the file; null looks beside the file, then at the path in it.
        box_margin: factor on the extent of the keypoints that makes a box.
        rename: node to keypoint of the skeleton, where they differ.
        images: folder of the images, where the file lists images in place of a video; null is the file's own.

    Raises:
        DataError: the file or a video is missing or broken, or contradicts itself or the skeleton.
    """
    file = load(Path(labels), TABLES)
    found = sleap.labels_of(file, skeleton, frames_to, video, None, False, box_margin, rename, images)
    found.extras = None
    return found


def write(labels: Labels, path: str | Path, copy: bool = False) -> Path:
    """Write training frames; images without a labelled instance have none.

    Args:
        labels: what to write.
        path: the ``.nwb`` file.
        copy: copy the images beside it as well.

    Raises:
        DataError: sleap-io is not installed, or there are more images than it can write: about 8,000.
    """
    path = Path(path)
    if find_spec("sleap_io") is None:
        raise DataError(f"{path}: writing NWB needs sleap-io. Install the extra: pip install 'kplab[formats]'.")
    import sleap_io

    path.parent.mkdir(parents=True, exist_ok=True)
    if copy:
        copy_images(labels, path.parent, labels.names)
    with tempfile.TemporaryDirectory() as folder:
        beside = sleap.write(labels, Path(folder) / "labels.slp")
        try:
            sleap_io.save_nwb(sleap_io.load_slp(str(beside)), str(path), nwb_format="annotations")
        except OSError as error:
            path.unlink(missing_ok=True)
            # HDF5 limits an attribute to 64 kB, and sleap-io writes one number of each image into one
            if "attribute" not in str(error):
                raise
            raise DataError(
                f"{path}: sleap-io can't write {len(labels)} images as NWB ({error}). Write fewer images to a file, or "
                "use another format."
            ) from None
    return path
