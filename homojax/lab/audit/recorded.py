"""The mixing of tokens that were recorded: read from a file, measured, and told as quantiles."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from homojax.depth import detail_composite
from homojax.lab.audit.alternations import RELATIVE
from homojax.lab.audit.ellipsoid import ellipsoid_of, rectangles
from homojax.lab.audit.layers import Layer, Mixing
from homojax.lab.audit.measures import least_responses
from homojax.lab.audit.names import natural, number_in, site_of, stack_of, unwrapped
from homojax.lab.audit.reading import checkpoint_of, is_path, open_checkpoint
from homojax.lab.audit.tensors import Precision, Tensor, read_any
from homojax.lab.inputs import InputError
from homojax.metrics import of_matrix
from homojax.presets import Preset
from homojax.programs import program
from homojax.projection.sinkhorn import sinkhorn
from homojax.registry import nearest
from homojax.spectrum import sigma2
from homojax.spectrum.singular_value import spectral_norm

Kind = Literal["matrices", "streams"]
AXES = {"matrices": "n, n]", "streams": "n, C]"}  # the last ones of a recording
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
TOKENS = 512  # that are measured at a time
MOST_COMPARED = 8  # n up to which logits are held against their ellipsoid: it has n⁴ rectangles


class Sample(NamedTuple):
    """The mixing of one layer at the tokens that were recorded."""

    run: np.ndarray  # [T, n, n], as the model computes it, for y = M x
    converged: np.ndarray  # [T, n, n]; NaN where no doubly stochastic matrix has its zeros
    values: dict[str, np.ndarray]  # [T] each: what is measured of each token
    outside: int | None  # tokens whose logits no token of the checkpoint can have; None: not known


def mixing_recorded(place: Any, *, turned: bool = False) -> tuple[Mixing, list[Sample]]:
    """Return the layers of recorded matrices, of which no checkpoint is known, and their samples.

    Args:
        place: a file, or a dict of arrays.
        turned: whether they are the transposes of what is applied as y = M x.

    Raises:
        InputError: it cannot be read, or holds no such arrays.

    >>> mixing, (sample,) = mixing_recorded({"h.0": np.full((3, 2, 2), 0.5)})
    >>> mixing.layers[0].name, sample.values["sigma2"].tolist()
    ('h.0', [0.0, 0.0, 0.0])
    """
    layers, samples = [], []
    for name, load in sorted(_by_name(place).items(), key=lambda pair: _order(pair[0])):
        matrices = _as_matrices(name, load(), turned)
        layers.append(
            Layer(
                name=name,
                number=number_in(name),
                site=site_of(name),
                layout="recorded",
                preset=RECORDED,
                base=np.zeros((0, 0)),
                base_precision=Precision("float64", 0.0),
                n=matrices.shape[1],
            )
        )
        samples.append(_of_matrices(matrices))
    return Mixing(tuple(layers), ()), samples


def samples_of(layers: tuple[Layer, ...], place: Any, kind: Kind) -> Iterator[Sample | None]:
    """Yield what was recorded of each layer of a checkpoint; None where nothing was.

    Args:
        layers: of the checkpoint.
        place: a file, or a dict of arrays: by the layers' names, or one array for all of them in
            their order, [..., L, n, n] or [..., L, n, C].
        kind: whether it has matrices, or the streams before each mixing.

    Raises:
        InputError: it cannot be read, names a layer that there is not, or has other shapes.
    """
    make = _at_matrices if kind == "matrices" else _at_streams
    loads = _by_layer(_tensors_of(place), layers, kind)
    for layer in layers:
        yield make(layer, loads[layer.name]()) if layer.name in loads else None


def _order(name: str) -> tuple:
    """Return a key that sorts names as layers follow each other: attention before feed-forward."""
    number = re.search(r"[0-9]{1,15}", name)
    site = ("attention", "other", "feed-forward").index(site_of(name))
    return natural(stack_of(name)), int(number[0]) if number else -1, site, natural(name)


RECORDED = Preset(
    name="recorded",
    statement="the matrices as they were recorded",
    source="the user",
    parametrization="truncated-sinkhorn",
    initial=lambda n: jnp.zeros((n, n)),
    orientation="outputs-first",
)


# ---------------------------------------------------------------- reading


def _tensors_of(place: Any) -> dict[str, Tensor]:
    if is_path(place):
        tensors = open_checkpoint(place).tensors
        if not tensors:
            raise InputError(f"{place} has no arrays.")
        return tensors
    return checkpoint_of(place if hasattr(place, "items") else {"recorded": place}).tensors


Loads = dict[str, Callable[[], np.ndarray]]  # by the name of a layer


def _by_name(place: Any) -> Loads:
    """Return the arrays by their names; of an array that has none, the layers by their number."""
    tensors = _tensors_of(place)
    only = next(iter(tensors.values()))
    named = Path(place).suffix != ".npy" if is_path(place) else hasattr(place, "items")
    if named or len(tensors) > 1:
        return {unwrapped(name): partial(read_any, tensor) for name, tensor in tensors.items()}
    if len(only.shape) < 4:
        raise InputError(
            f"{only.name} has shape {list(only.shape)}, in which layers and tokens cannot be told "
            "apart: give [tokens, layers, n, n], or arrays by the names of layers."
        )
    array = read_any(only)
    return {str(k + 1): partial(_layer_of, array, k) for k in range(array.shape[-3])}


def _by_layer(tensors: dict[str, Tensor], layers: tuple[Layer, ...], kind: Kind) -> Loads:
    """Return the arrays by the names of a checkpoint's layers."""
    depth, loads = len(layers), {}
    only = next(iter(tensors.values()))
    if len(tensors) == 1 and _layer_named(unwrapped(only.name), layers) is None:
        if len(only.shape) < 3 or only.shape[-3] != depth:
            raise InputError(
                f"{only.name} has shape {list(only.shape)}, and the checkpoint has {depth} layers: "
                f"record [..., {depth}, {AXES[kind]}, or arrays by the layers' names."
            )
        array = read_any(only)
        return {layer.name: partial(_layer_of, array, k) for k, layer in enumerate(layers)}
    for tensor in tensors.values():
        name = unwrapped(tensor.name)
        found = _layer_named(name, layers)
        if found is None:
            known = nearest(name, [layer.name for layer in layers])
            raise InputError(f'the checkpoint has no layer "{name}": {known}')
        if found in loads:
            raise InputError(
                f'the layer "{found}" is recorded twice, as "{name}", too: give one array for each '
                "layer. If this is a checkpoint and no recording, it goes first, without an option."
            )
        loads[found] = partial(read_any, tensor)
    return loads


def _layer_named(name: str, layers: tuple[Layer, ...]) -> str | None:
    """Return which layer a name means; a module may be called otherwise than its tensors."""
    place = number_in(name), site_of(name)
    alike = [layer.name for layer in layers if (layer.number, layer.site) == place]
    if any(layer.name == name for layer in layers):
        return name
    return alike[0] if len(alike) == 1 and place[0] is not None else None


def _layer_of(array: np.ndarray, k: int) -> np.ndarray:
    return array[..., k, :, :]


def _as_matrices(name: str, array: np.ndarray, turned: bool) -> np.ndarray:
    """Return recorded matrices [T, n, n], for y = M x; a token that is not finite is NaN."""
    if array.ndim < 2 or array.shape[-2] != array.shape[-1] or array.shape[-1] < 2:
        raise InputError(f"{name} has shape {list(array.shape)}: matrices have [..., n, n], n ≥ 2.")
    matrices = _finite_or_nan(name, array)
    there = matrices[~np.isnan(matrices[:, 0, 0])]
    if there.min() < 0:
        raise InputError(
            f"{name} has the entry {there.min():.3g}: entries of mixing matrices are not "
            "negative; record the matrix that mixes, not its logits."
        )
    if not (there.sum(1).all() and there.sum(2).all()):
        raise InputError(
            f"{name} has a row or a column of zeros: that is no mixing matrix; look at what is "
            "recorded."
        )
    return matrices.transpose(0, 2, 1) if turned else matrices


def _finite_or_nan(name: str, array: np.ndarray) -> np.ndarray:
    """Return a recording as [T, …], with NaN for a token that has any number that is not finite."""
    tokens = array.reshape(-1, *array.shape[-2:])
    if not tokens.size:
        raise InputError(f"{name} has shape {list(array.shape)}: no token was recorded.")
    bad = np.asarray(~np.isfinite(tokens).all((1, 2)))
    if bad.all():
        raise InputError(
            f"{name} has no token whose numbers are finite: half precision may have overflowed; "
            "record float32."
        )
    return np.where(bad[:, None, None], np.nan, tokens)


# ---------------------------------------------------------------- one layer


def _at_streams(layer: Layer, array: np.ndarray) -> Sample:
    if array.ndim < 2:
        raise InputError(f"{layer.name} has shape {list(array.shape)}: streams have [..., n, C].")
    parameters = layer.parameters(_finite_or_nan(layer.name, array))
    run = _in_parts(_program(layer.preset), parameters)
    if layer.preset.num_iters is None:
        return _measured(run, run, None)
    logits = parameters / layer.preset.epsilon
    logits = logits.transpose(0, 2, 1) if layer.turned else logits
    return _measured(run, _in_parts(_limits, logits), _count_outside(layer, logits, 0.0))


def _at_matrices(layer: Layer, array: np.ndarray) -> Sample:
    turned = layer.preset.orientation == "inputs-first"
    matrices = _as_matrices(layer.name, array, turned)
    if matrices.shape[1] != layer.n:
        raise InputError(
            f"matrices of {layer.name} have n = {matrices.shape[1]}, and the checkpoint "
            f"has n = {layer.n}."
        )
    if layer.preset.num_iters is None:
        return _measured(matrices, matrices, None)
    # The largest logits that nothing is known of: what constants, and float32, may have moved.
    blurred = 4 * layer.n * layer.preset.added_to_entries + 1e-6
    with np.errstate(divide="ignore"):
        logits = np.log(matrices)
    outside = _count_outside(layer, logits, blurred / np.maximum(matrices, 1e-300))
    return _of_matrices(matrices)._replace(outside=outside)


def _of_matrices(matrices: np.ndarray) -> Sample:
    """Return a sample of matrices alone, which have the cross ratios of the logits they are of."""
    with np.errstate(divide="ignore"):
        return _measured(matrices, _in_parts(_limits, np.log(matrices)), None)


def _measured(run: np.ndarray, converged: np.ndarray, outside: int | None) -> Sample:
    values = _in_parts(_measure, np.stack([run, converged], 1))
    return Sample(
        run, converged, {**values, "response_converged": least_responses(converged)}, outside
    )


@cache
def _program(preset: Preset) -> Callable:
    """Return the compiled matrices of many tokens; layers of one preset share it."""
    return program(jax.vmap(preset.matrix))


@program
@jax.vmap
def _limits(logits: jax.Array) -> jax.Array:
    return jnp.asarray(sinkhorn(logits, 1.0).matrix)


@program
@jax.vmap
def _measure(pair: jax.Array) -> dict[str, jax.Array]:
    run, converged = pair
    return {
        **of_matrix(run),
        "sigma2_converged": sigma2(converged),
        "leaving_converged": 1 - jnp.trace(converged) / run.shape[0],
    }


def _count_outside(layer: Layer, logits: np.ndarray, blurred: Any) -> int | None:
    """Return how many logits over ε [T, n, n] have a cross ratio that no token can have."""
    n = layer.n
    if n > MOST_COMPARED:
        return None
    most = rectangles(ellipsoid_of(layer)).against * (1 + RELATIVE) + RELATIVE
    blurred = np.broadcast_to(blurred, logits.shape)
    outside = np.zeros(len(logits), bool)
    for i in range(n):
        for j in range(n):
            k, m = np.delete(np.arange(n), i), np.delete(np.arange(n), j)
            with np.errstate(invalid="ignore"):
                crossed = (
                    logits[:, i, m][:, None, :]
                    + logits[:, k, j][:, :, None]
                    - logits[:, k][:, :, m]
                    - logits[:, i, j][:, None, None]
                )
            unsure = (
                blurred[:, i, m][:, None, :]
                + blurred[:, k, j][:, :, None]
                + blurred[:, k][:, :, m]
                + blurred[:, i, j][:, None, None]
            )
            outside |= (crossed - unsure > most[i, j]).any((1, 2))
    return int(outside.sum())


def _in_parts(program: Any, arrays: np.ndarray) -> Any:
    """Return ``program`` of all tokens, some at a time, in as few sizes as can be."""
    size = min(TOKENS, 1 << (len(arrays) - 1).bit_length())
    parts = []
    for start in range(0, len(arrays), size):
        part = arrays[start : start + size]
        padded = np.concatenate([part, np.repeat(part[-1:], size - len(part), 0)])
        parts.append(jax.device_get(program(padded)))
    return jax.tree.map(lambda *x: np.concatenate(x)[: len(arrays)], *parts)


# ---------------------------------------------------------------- the stack


def products(samples: list[Sample]) -> dict[str, np.ndarray] | None:
    """Return σ₂ of the product of layers, [T] as run and converged, token by token.

    None where layers have recordings of different numbers of tokens: they are of no one token.
    """
    if len({len(sample.run) for sample in samples}) > 1:
        return None
    found = {}
    for name, kind in (("composite_sigma2", "run"), ("composite_sigma2_converged", "converged")):
        stacks = np.stack([getattr(sample, kind) for sample in samples], 1)
        found[name] = _in_parts(_left, stacks)
    return found


@program
@jax.vmap
def _left(matrices: jax.Array) -> jax.Array:
    return spectral_norm(detail_composite(matrices)[-1])


def quantiles(values: np.ndarray) -> np.ndarray:
    """Return the quantiles of a sample [T] that there are numbers of; NaN where there are none."""
    there = values[np.isfinite(values)]
    if not len(there):
        return np.full(len(QUANTILES), np.nan)
    return np.quantile(there, QUANTILES)
