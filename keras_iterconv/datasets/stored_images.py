"""Images on disk, each of which is read and decoded where it is used."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from keras_iterconv.datasets.picture_files import UnreadablePictureError, decode_picture

# Number of images that are decoded at a time, so that few are in memory.
CHUNK = 64
# Each decodes a whole picture, which can take half a gigabyte.
MOST_THREADS = 8


class StoredImages:
    """Images on disk, with the part of an array's interface that data sets use.

    An index gives an array of these images, decoded: `images[:64]`, `images[[5, 2]]`, `images[3]`.
    Equal indices give equal pixels, so the batches are those of the same images in memory.

    Args:
        read: Function from the number of a picture to its name and its encoded content.
        numbers: Number of each image, int [N].
        image_shape: Shape (H, W, C) to which each picture is cropped and resized; C is 1 or 3.

    Attributes:
        shape: Shape (N, H, W, C).
        dtype: `uint8`.

    Example:
        >>> for number in range(3):
        ...     keras.utils.save_img(f"{number}.png", np.full((9, 9, 1), 100 * number), scale=False)
        >>> def read(number):
        ...     with open(f"{number}.png", "rb") as file:
        ...         return file.name, file.read()
        >>> images = ki.datasets.StoredImages(read, np.arange(3), (8, 8, 1))
        >>> images.shape, images[[2, 0]][:, 0, 0, 0].tolist()
        ((3, 8, 8, 1), [200, 0])

    See also:
        `datasets.load_folder`, which makes them of a folder larger than the memory;
        `datasets.Split`.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(
        self,
        read: Callable[[int], tuple[str, bytes]],
        numbers: np.ndarray,
        image_shape: tuple[int, int, int],
    ):
        self.read = read
        self.numbers = np.asarray(numbers, np.int64)
        self.shape = (len(self.numbers), *image_shape)
        # The first error within a TensorFlow graph, which passes on its text with a traceback.
        self.failures: list[UnreadablePictureError] = []

    def __len__(self) -> int:
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Number of bytes of all decoded images."""
        return int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(self, key: int | slice | np.ndarray) -> np.ndarray:
        """Return decoded images, uint8 [M, H, W, C], or [H, W, C] for an integer.

        Raises:
            UnreadablePictureError: A picture is missing or damaged.
        """
        numbers = self.numbers[key]
        if np.ndim(numbers) == 0:
            return self._decode(int(numbers))
        images = np.empty((len(numbers), *self.shape[1:]), np.uint8)
        for image, number in zip(images, numbers.tolist(), strict=True):
            image[...] = self._decode(number)
        return images

    def take(self, indices: np.ndarray) -> "StoredImages":
        """Return the images at `indices`, in that order, without reading them.

        Args:
            indices: Numbers of images, int `[n]`.
        """
        taken = StoredImages(self.read, self.numbers[indices], self.shape[1:])
        taken.failures = self.failures
        return taken

    def gather(self, indices: tf.Tensor) -> tf.Tensor:
        """Return decoded images in a graph.

        Args:
            indices: Indices of images, int32 [B].

        Returns:
            Images, uint8 [B, H, W, C].
        """

        def read(indices: np.ndarray) -> np.ndarray:
            try:
                return self[indices]
            except UnreadablePictureError as error:
                self.failures.append(error)
                raise

        images = tf.numpy_function(read, [indices], tf.uint8)
        return tf.ensure_shape(images, [None, *self.shape[1:]])

    def decode_each(self) -> Iterator[np.ndarray | UnreadablePictureError]:
        """Yield each image once, in order, or the error of one that cannot be read.

        Several are decoded at the same time, each on a core.
        """

        def attempt(number: int) -> np.ndarray | UnreadablePictureError:
            try:
                return self._decode(number)
            except UnreadablePictureError as error:
                return error

        with ThreadPoolExecutor(min(os.cpu_count() or 1, MOST_THREADS)) as threads:
            for begin in range(0, len(self), CHUNK):
                yield from threads.map(attempt, self.numbers[begin : begin + CHUNK].tolist())

    def _decode(self, number: int) -> np.ndarray:
        name, content = self.read(number)
        height, width, channels = self.shape[1:]
        return decode_picture(content, (height, width, channels), name)
