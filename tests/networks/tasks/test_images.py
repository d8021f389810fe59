"""Classification: patches of given images in standard units, split by class."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from homojax.networks.tasks.images import classification

IMAGES = np.random.default_rng(0).normal(size=(40, 6, 4))
LABELS = np.arange(40) % 3
NAN = np.where(np.arange(40)[:, None, None] == 3, np.nan, IMAGES)


def test_patches_are_the_image_row_by_row_in_training_standard_units(batch_of):
    made = classification(IMAGES, LABELS, patch=2, held_out=0.25)
    inputs, targets, _ = map(np.asarray, made.test)
    seen = batch_of(made, 0, 2000)
    patches = np.array(
        [[im[r : r + 2, c : c + 2].ravel() for r in (0, 2, 4) for c in (0, 2)] for im in IMAGES]
    )

    def places(
        tokens,
    ):  # which image an example is: standard units are an increasing affine map, so correlation 1
        flat, whole = tokens.reshape(len(tokens), -1), patches.reshape(40, -1)
        likeness = np.array([[np.corrcoef(a, b)[0, 1] for b in whole] for a in flat])
        np.testing.assert_allclose(likeness.max(1), 1)
        return likeness.argmax(1)

    held = places(inputs)
    kept, first = np.unique(seen[0].reshape(2000, -1), axis=0, return_index=True)
    trained = places(kept)
    assert sorted([*held, *trained]) == list(range(40))  # every image in one part
    np.testing.assert_array_equal(targets, LABELS[held])
    np.testing.assert_array_equal(seen[1][first], LABELS[trained])
    pixels = IMAGES[trained]
    np.testing.assert_allclose(
        inputs, (patches[held] - pixels.mean()) / pixels.std(), rtol=1e-12, atol=1e-12
    )


def test_every_class_is_held_out_in_proportion_and_a_single_image_is_trained_on():
    labels = np.repeat([0, 1, 2, 4], [20, 7, 2, 1])
    made = classification(IMAGES[:30], labels, held_out=0.2)
    assert (
        np.bincount(made.test[1]).tolist() == [4, 1, 1]
        and made.classes == 5
        and made.chance == 4 / 6
    )
    splits = {
        tuple(np.asarray(classification(IMAGES[:30], labels, seed=seed).test[0][:, 0, 0]))
        for seed in range(4)
    }
    assert len(splits) == 4


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
def test_a_task_on_images_keeps_their_dtype_and_unit_scale(dtype):
    made = classification(jnp.asarray(IMAGES * 9 + 50, dtype), LABELS)
    for inputs, targets, weights in (
        made.test,
        jax.eval_shape(lambda: made.train(jax.random.key(0), 3)),
    ):
        assert inputs.dtype == weights.dtype == dtype and targets.dtype == np.int32
    assert np.asarray(made.train(jax.random.key(0), 400)[0], float).std() == pytest.approx(
        1, abs=0.05
    )
    assert (
        classification((IMAGES * 9).astype(int), LABELS).test[0].dtype == np.float64
    )  # the default dtype of this session


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: classification(NAN, LABELS),
            r"images are nan at \[3, 0, 0\]: they must be finite",
        ),
        (lambda: classification(IMAGES[0], LABELS), r"shape \[N, height, width\].* got \[6, 4\]"),
        (lambda: classification(IMAGES[:0], LABELS[:0]), "none be empty"),
        (
            lambda: classification(IMAGES, LABELS[1:]),
            r"40 images need labels of shape \[40\], got \[39\]",
        ),
        (lambda: classification(IMAGES, LABELS / 2), "labels must be whole numbers"),
        (lambda: classification(IMAGES, LABELS - 1), "labels must be whole numbers from 0"),
        (lambda: classification(IMAGES, 0 * LABELS), "every label is 0"),
        (lambda: classification(IMAGES[:3], LABELS[:3]), "no class has two images"),
        (lambda: classification(0 * IMAGES, LABELS), "one and the same colour"),
        (
            lambda: classification(IMAGES, LABELS, patch=4),
            "patches of 4 x 4 do not tile images of 6 x 4",
        ),
        (lambda: classification(IMAGES[:, :4], LABELS, patch=4), "is the whole image"),
        (
            lambda: classification(IMAGES, LABELS, held_out=1),
            "held_out must be strictly between 0 and 1",
        ),
        (lambda: classification(IMAGES, LABELS, held_out=float("nan")), "held_out must be"),
    ],
)
def test_what_makes_no_task_is_refused_in_one_sentence(make, said):
    with pytest.raises(ValueError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value) and ". " not in str(caught.value)
