"""From a file to the pictures in it: one image, or the many of an ``.npz`` archive."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from jaxtyping import UInt8
from torch import Tensor

from equivox.errors import InputError
from equivox.formats.archives import read_arrays
from equivox.formats.pictures import read_picture
from equivox.tasks.images.config import InputConfig
from equivox.tasks.images.data import central_square
from equivox.tasks.images.sources import IMAGE_NAMES, pixel_array


def squares_of(path: Path, config: InputConfig) -> list[tuple[str, UInt8[Tensor, "channel y x"]]]:
    """Pictures of a file by their names within it; the name is empty where the file is one image.

    Raises
    ------
    InputError
        If the file cannot be read, or holds something else.
    """
    channels: Literal[1, 3] = 3 if config.channels == 3 else 1
    if path.suffix.lower() != ".npz":
        return [("", central_square(read_picture(path, channels=channels), config, where=str(path)))]
    arrays = read_arrays(path, {}, what="a set of pictures")
    found = []
    if "jpeg" in arrays and "offsets" in arrays:
        content, offsets = arrays["jpeg"].tobytes(), [int(one) for one in arrays["offsets"].ravel()]
        if sorted(offsets) != offsets or not offsets or offsets[-1] > len(content):
            raise InputError(f"{path}, array offsets, does not divide the files; it is damaged.")
        for place in range(len(offsets) - 1):
            name = f"{place:06d}"
            part = content[offsets[place] : offsets[place + 1]]
            picture = read_picture(part, channels=channels, name=f"{path}#{name}")
            found.append((name, central_square(picture, config, where=f"{path}#{name}")))
        return found
    key = next((key for key in (*IMAGE_NAMES, "test_images") if key in arrays), None)
    if key is None:
        raise InputError(f"{path} holds {', '.join(sorted(arrays)[:6])} and no pictures; call them x or images.")
    for place, pixels in enumerate(pixel_array(path, key, arrays[key])):
        picture = torch.from_numpy(pixels).movedim(-1, 0)
        found.append((f"{place:06d}", central_square(picture, config, where=f"{path}#{place:06d}")))
    return found
