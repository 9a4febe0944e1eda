"""Images of your own: a folder of picture files, one folder inside it for each class."""

import os
import warnings
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from research.data.checks import repeated
from research.data.examples import Examples
from research.data.files.local import blaming, listing
from research.data.images import Images
from research.data.preparation import Preparation
from research.data.source import Source
from research.errors import nearest
from research.ranges import OpenShare, Size
from research.tree import ConfigError, recipe

ENDINGS = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")  # the only decoders of Pillow that a file reaches, whatever its name
PARTS = ("train", "test")
MOST_PIXELS = 50_000_000  # of one image; a file that declares more is refused before it is decoded
COLORS = {"grey": "L", "rgb": "RGB"}


class Picture(NamedTuple):
    """A file of an image.

    Attributes:
      path: of the file.
      name: its path below the folder of the recipe, for errors.
      part: "train" or "test"; "" without parts.
      label: name of its folder; "" without classes.
    """

    path: Path
    name: str
    part: str
    label: str


class Decoded(NamedTuple):
    """The pixels of a file, and what is worth a note.

    Attributes:
      pixels: uint8, [H, W] or [H, W, 3].
      shape: height and width as stored.
      colored: it has colors that are read as grey.
      transparent: it has transparent pixels, which lie on white now.
    """

    pixels: np.ndarray
    shape: tuple[int, int]
    colored: bool
    transparent: bool


@recipe
class Folder(Images):
    """Images in class folders, FOLDER/class/*.png or .jpg, or without classes, FOLDER/*.png.

    x [N, H, W] or [N, H, W, 3] uint8 in the order of the names, label [N] int32: the names of the folders, sorted, are
    the classes 0 to K - 1, and every part has its share of each. If there are FOLDER/train and FOLDER/test, of the same
    form, they are fixed parts. Names that start with a point are left out. Pillow decodes the files once; a file that
    is damaged, declares more than 50 million pixels, or lies outside of the folder (a link) is refused.

    Attributes:
      path: the folder, from the current folder, or from `root` if that is set.
      size: side of the images, or (height, width), to which they are resized (bilinear, with antialiasing); null takes
        them as they are, and all must be of one size.
      color: "grey" (luminance) or "rgb". Transparent images are laid on white.
      test_fraction: share of the rows that are test rows; not used with FOLDER/test.
    """

    path: str
    size: Size | tuple[Size, Size] | None
    color: Literal["grey", "rgb"]
    test_fraction: OpenShare

    def validate(self) -> None:
        """Refuse a path that is not set, and images of three channels as sequences."""
        super().validate()
        if self.path == "???":
            raise ConfigError("path", self.path, "name your folder of images, for example data.path=pictures")
        if self.layout != "image" and self.color == "rgb":
            remedy = "a step has one value for each pixel, so set data.color=grey, or data.layout=image"
            raise ConfigError("layout", self.layout, remedy)

    @property
    def folder(self) -> Path:
        return Path(self.root or "").expanduser() / Path(self.path).expanduser()

    def stamp(self) -> Hashable:
        """Names of all folders, and names, sizes and times of all files."""
        if not self.folder.is_dir():
            return None
        state: list[Hashable] = []
        for directory, folders, files in os.walk(self.folder):
            folders.sort()
            state += [str(Path(directory) / name) for name in folders]
            for name in sorted(files):
                path = Path(directory) / name
                status = path.stat() if path.exists() else path.lstat()
                state.append((str(path), status.st_size, status.st_mtime_ns))
        return tuple(state)

    def stored(self) -> Source:
        """All images, those of FOLDER/train first."""
        return self._source(None)

    def stored_for(self, trained: Preparation) -> Source:
        """All images for a run, without any division."""
        return self._source(trained)

    def _source(self, trained: Preparation | None) -> Source:
        with blaming("path", self.path):
            pictures, notes = self._pictures()
        x, more = self._decode(pictures, trained)
        notes += more
        classes = sorted({picture.label for picture in pictures})
        label = None
        if len(classes) > 1 or (trained is not None and classes != [""]):
            label = np.array([classes.index(picture.label) for picture in pictures], np.int32)
        elif classes != [""]:
            notes.append(f"all images are in the folder {classes[0]}, so there are no classes")
        test = None
        if pictures[0].part:
            test = np.array([picture.part == "test" for picture in pictures])
        if trained is None:
            notes += repeated(x, None, test, f"{self.path}/test", "path")
            notes += [] if label is None else _contradictions(x, label)
        return self.laid_out(
            Source(
                self.folder.resolve().name,
                "image",
                Examples(x=x, label=label),
                test=test,
                unit=255,
                classes=None if label is None else tuple(classes),
                notes=tuple(notes),
                stratify=label is not None,
            )
        )

    # ------------------------------------------------------------------------------------------------------ the files

    def _pictures(self) -> tuple[list[Picture], list[str]]:
        """All files in order, and notes on what is left out.

        Raises:
          ConfigError: with an empty key: there is no such folder, or it has another form.
        """
        folder = self.folder
        if not folder.is_dir():
            near = (
                nearest(folder.name, [item.name for item in folder.parent.iterdir()]) if folder.parent.is_dir() else ""
            )
            raise ConfigError("", None, f"no folder {folder.absolute()}{near}")
        entries = sorted(item.name for item in folder.iterdir() if not item.name.startswith("."))
        parts = [name for name in PARTS if (folder / name).is_dir()]
        if len(parts) == 1:
            other = PARTS[1 - PARTS.index(parts[0])]
            remedy = f"there is no folder {other} beside {parts[0]}; name that folder: data.path={self.path}/{parts[0]}"
            remedy += f" (if {parts[0]} is a class, call its folder otherwise)"
            raise ConfigError("", None, remedy)
        if parts and len(entries) > 2:
            beside = next(name for name in entries if name not in PARTS)
            raise ConfigError("", None, f"{beside} lies beside the folders train and test; move it elsewhere")
        pictures, left_out = [], []
        for part in parts or [""]:
            of_part, other_files = _pictures_of(folder, part)
            pictures += of_part
            left_out += other_files
        unlabelled = {part for part in parts if any(not picture.label for picture in pictures if picture.part == part)}
        if 0 < len(unlabelled) < len(parts):
            raise ConfigError("", None, "only one of the folders train and test has class folders")
        if not left_out:
            return pictures, []
        return pictures, [f"files left out, because they do not end in {', '.join(ENDINGS)}: {', '.join(left_out[:5])}"]

    def _decode(self, pictures: Sequence[Picture], trained: Preparation | None) -> tuple[np.ndarray, list[str]]:
        """The pixels of all files, [N, H, W] or [N, H, W, 3] uint8, and notes."""
        size = (self.size, self.size) if isinstance(self.size, int) else self.size
        x: Any = None
        ratios, colored, transparent = set(), 0, 0
        for row, picture in enumerate(pictures):
            with blaming("path", self.path, every_error=True):
                decoded = decode(picture.path, picture.name, self.color, size)
            if x is None:
                x = np.empty((len(pictures), *decoded.pixels.shape), np.uint8)
            if decoded.pixels.shape != x.shape[1:]:
                shapes = [" by ".join(map(str, shape[:2])) for shape in (decoded.pixels.shape, x.shape[1:])]
                problem = f"{picture.name} has {shapes[0]} pixels, and {pictures[0].name} has {shapes[1]}"
                raise ConfigError("size", None, f"{problem}; name one size for all, such as data.size=28")
            x[row] = decoded.pixels
            ratios.add(decoded.shape[0] / decoded.shape[1])
            colored += decoded.colored
            transparent += decoded.transparent
        notes = []
        if colored and trained is None:
            notes.append(f"{colored} of {len(x)} images have colors and are read as grey; data.color=rgb keeps them")
        if transparent:
            notes.append(f"{transparent} of {len(x)} images have transparent pixels, which are laid on white")
        if size is not None and any(abs(ratio * size[1] / size[0] - 1) > 0.02 for ratio in ratios):
            notes.append(
                f"some images are stretched, because their sides have another ratio than {size[0]} to {size[1]}"
            )
        return x, notes


def _pictures_of(folder: Path, part: str) -> tuple[list[Picture], list[str]]:
    """The files of one part in order, and the names of other files.

    Raises:
      ConfigError: with an empty key: there are no images, or files beside class folders, or folders in them.
    """
    outside, part_folder = folder.resolve(), folder / part
    pictures: list[Picture] = []
    left_out: list[str] = []

    def collect(inner: Path, label: str) -> bool:
        count = len(pictures)
        for item in sorted(inner.iterdir(), key=lambda item: item.name):
            name = str(item.relative_to(folder))
            if item.name.startswith("."):
                continue
            if not item.resolve().is_relative_to(outside):
                raise ConfigError("", None, f"{name} is a link that leaves the folder; copy the file into it")
            if item.is_dir():
                problem = f"{name} is a folder inside a class folder; images lie directly in the folder of their class"
                raise ConfigError("", None, problem)
            if item.suffix.lower() not in ENDINGS:
                left_out.append(name)
            elif not item.is_file():
                raise ConfigError("", None, f"{name} is a broken link or no file; remove it")
            else:
                pictures.append(Picture(item, name, part, label))
        return len(pictures) > count

    entries = sorted(part_folder.iterdir(), key=lambda item: item.name)
    inside = [item for item in entries if not item.name.startswith(".")]
    folders = [item for item in inside if item.is_dir()]
    if not folders:
        collect(part_folder, "")
    else:
        files = [item.name for item in inside if not item.is_dir()]
        if any(Path(name).suffix.lower() in ENDINGS for name in files):
            image = next(name for name in files if Path(name).suffix.lower() in ENDINGS)
            problem = f"{image} lies beside the folder {folders[0].name}; put every image into the folder of its class"
            raise ConfigError("", None, f"{problem}, or all of them into one folder")
        left_out += files
        for item in folders:
            if not item.resolve().is_relative_to(outside):
                raise ConfigError("", None, f"{item.name} is a link that leaves the folder; copy its files into it")
            if not collect(item, item.name):
                raise ConfigError("", None, f"the folder {item.relative_to(folder)} holds no image; remove it")
    if not pictures:
        inside_text = listing(part_folder)
        raise ConfigError("", None, f"no file here ends in {', '.join(ENDINGS)}; the folder holds: {inside_text}")
    return pictures, left_out


def _contradictions(x: np.ndarray, label: np.ndarray) -> list[str]:
    """A note on images [N, ...] that are of several classes [N]."""
    classes: dict[bytes, set[int]] = {}
    for image, number in zip(x, label.tolist(), strict=True):
        classes.setdefault(image.tobytes(), set()).add(number)
    count = sum(len(numbers) > 1 for numbers in classes.values())
    text = f"{count} of {len(classes)} different images lie in the folders of several classes; keep each in one"
    return [text] if count else []


def decode(path: Path, name: str, color: str, size: tuple[int, int] | None) -> Decoded:
    """The pixels of a file of 8 bits a channel, turned upright as its Exif data say.

    Args:
      path: the file.
      name: how errors name it.
      color: "grey" or "rgb".
      size: height and width; None keeps those of the file.

    Raises:
      ConfigError: it is damaged, too large, holds several pictures, or has more than 8 bits a channel.
    """
    from PIL import Image, ImageOps

    refuse = lambda problem: ConfigError("", None, f"{name}: {problem}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path, formats=FORMATS) as image:
                if image.width * image.height > MOST_PIXELS:
                    raise Image.DecompressionBombError(f"{image.width} by {image.height} pixels")
                if getattr(image, "n_frames", 1) > 1:
                    raise refuse("it holds several pictures; save one of them")
                deep = image.mode.startswith(("I", "F")) or any("16" in str(tile[-1]) for tile in image.tile)
                if deep:
                    raise refuse(
                        "it has more than 8 bits a channel; save it with 8, or the arrays as .npy (data=arrays)"
                    )
                image.load()
                upright: Any = ImageOps.exif_transpose(image)
    except ConfigError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        problem = f"it declares more than {MOST_PIXELS:,} pixels and is not decoded ({error})"
        raise refuse(f"{problem}; make it smaller") from None
    except (OSError, SyntaxError, ValueError, IndexError, EOFError, MemoryError) as error:
        reason = "no picture of these formats" if isinstance(error, Image.UnidentifiedImageError) else str(error)
        raise refuse(f"it is damaged or no PNG or JPEG file ({reason}); remove it or save it anew") from None
    transparent = False
    if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
        layers = upright.convert("RGBA")
        transparent = layers.getextrema()[3][0] < 255
        white = Image.new("RGBA", layers.size, "white")
        upright = Image.alpha_composite(white, layers).convert("RGB")
    shape = (upright.height, upright.width)
    colored = False
    if color == "grey" and upright.mode not in ("1", "L"):
        channels = np.asarray(upright.convert("RGB"))
        colored = bool((np.ptp(channels, axis=-1) > 0).any())
    upright = upright.convert(COLORS[color])
    if size is not None and shape != size:
        upright = upright.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return Decoded(np.asarray(upright, np.uint8), shape, colored, transparent)
