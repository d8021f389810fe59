"""Data that needs no download: handwritten digits, Python's own help, trained logits."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources

import numpy as np

from homojax.lab.inputs import InputError


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return scikit-learn's 1797 handwritten digits: images [1797, 8, 8] and labels [1797].

    Images are float32, whole numbers from 0 to 16; labels are int32, from 0 to 9. Every caller gets
    the same two read-only arrays.

    Source: "Optical Recognition of Handwritten Digits" of the UCI repository, its test part
    (Alpaydın and Kaynak, 1998).

    >>> images, labels = digits()
    >>> images.shape, images.max().item(), labels[:3].tolist()
    ((1797, 8, 8), 16.0, [0, 1, 2])
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    images = np.asarray(pixels, np.float32).reshape(-1, 8, 8)
    labels = np.asarray(labels, np.int32)
    images.flags.writeable = labels.flags.writeable = False
    return images, labels


@cache
def standardised_digits() -> np.ndarray:
    """Return the digits as float64 rows of pixels [1797, 64], with mean 0 and spread 1.

    >>> standardised_digits().shape
    (1797, 64)
    """
    images, _ = digits()
    pixels = images.reshape(len(images), -1).astype(np.float64)
    pixels = pixels - pixels.mean(0)
    return pixels / pixels.std()


@cache
def documentation() -> str:
    """Return the text of Python's ``help()`` topics, about 460 kB, in order of their names.

    The text differs between versions of Python: say which one beside a figure.

    Raises:
        InputError: this Python was installed without the topics.

    >>> len(documentation()) > 100_000
    True
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise InputError(
            "this Python was installed without its help topics (pydoc_data): use another Python "
            "for task text."
        ) from error
    return "".join(topics[name] for name in sorted(topics))


@cache
def trained_mhc() -> dict:
    """Return the twelve trained mHC logits that ship with the package, and their source.

    Keys: layers (each with logits), tau, num_iters, the figures that were published, and source.

    >>> len(trained_mhc()["layers"])
    12
    """
    file = resources.files("homojax").joinpath("data/trained_mhc_logits.json")
    return json.loads(file.read_text("utf-8"))
