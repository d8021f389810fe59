"""Audit a checkpoint: from its tensors to a Dataset of measures, certificates and verdicts."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from homojax.lab.audit import measures
from homojax.lab.audit.advice import advise
from homojax.lab.audit.certificates import Certificate, certify
from homojax.lab.audit.config import Audit
from homojax.lab.audit.dataset import (
    DEPTHS,
    FOUND,
    OF_STACK,
    attrs_of,
    certified,
    coords_of,
    described,
    notes_of,
    of_tokens,
    padded,
    stacked,
    words,
)
from homojax.lab.audit.judgements import judge, judge_whole
from homojax.lab.audit.layers import Layer, Mixing
from homojax.lab.audit.reading import checkpoint_of, files_missing, is_path
from homojax.lab.audit.recognising import mixing_of, recognise
from homojax.lab.audit.recorded import (
    Sample,
    mixing_recorded,
    products,
    quantiles,
    samples_of,
)
from homojax.lab.audit.trajectory import order_note, trajectory
from homojax.lab.audit.verdict import Judged, Verdict, counted, judge_tokens
from homojax.lab.audit.worst import largest_sum_errors, smallest_gaps
from homojax.lab.inputs import InputError, as_config, require_precision
from homojax.lab.progress import Progress, require_progress, silent
from homojax.lab.store import provenance
from homojax.presets import Preset


def audit(
    checkpoint: Any = None,
    config: Audit | None = None,
    *,
    streams: Any = None,
    matrices: Any = None,
    progress: Progress = silent,
    **fields: Any,
) -> xr.Dataset:
    """Say whether a model's residual mixing is in the trap, layer by layer and as a stack.

    Args:
        checkpoint: a path (a .safetensors, .npz, .npy, .gguf, .pt or .pth file, or a folder: of a
            model, or of orbax), a dict of arrays by name, or nnx state. A list of paths:
            checkpoints of one training in order, of which the last is audited. None: matrices
            alone.
        streams: what was recorded of a running model: the streams [..., n, C] before each mixing,
            by the names of layers, or [..., L, n, C]. A path, or arrays.
        matrices: or the mixing matrices themselves, [..., n, n] or [..., L, n, n], as the model's
            own variable has them; of matrices alone ``orientation`` says which way.
        config: how to read it, and thresholds; or give its fields as keywords, such as
            ``preset="mhc-paper"``.
        progress: called with (layers done, layers in all, what is being done).
        fields: fields of ``Audit``.

    Returns:
        A Dataset of dimensions layer, row and col. What ends in ``_converged`` is of the projection
        with no end to its alternations; what ends in ``_upper`` or ``_lower`` holds for every token
        there can be; ``…_sample`` has the quantiles of what was recorded, and ``trajectory_…`` what
        is measured of each of several checkpoints. Matrices are for y = M x, at the static part;
        there are none where matrices were recorded alone. The attrs have the verdict about the
        stack, its certainty and its reason; ``verdict``, ``certainty`` and ``reason`` those of each
        layer.

    Raises:
        InputError: the checkpoint or the recording cannot be read, there is no mixing that is known
            in it, they do not fit each other, or JAX's x64 is switched off.

    Source: docs/audit.md; the certificates are laws 9.1 to 9.4.

    >>> ds = audit({"h.0.hc_attn.H_res_logits": 0.1 * np.eye(4)})
    >>> ds.attrs["verdict"], ds.preset.values.tolist()
    ('healthy', ['tokenbender'])
    """
    require_progress(progress)
    config = as_config(Audit, config, fields)
    require_precision("float64")
    if streams is not None and matrices is not None:
        raise InputError("give recorded streams or recorded matrices, not both.")
    progress(0, 1, "reading")
    places = _places(checkpoint)
    if config.steps and (len(places) < 2 or len(config.steps) != len(places)):
        raise InputError(
            f"{counted(len(config.steps), 'step')} (--steps) for "
            f"{counted(len(places), 'checkpoint')}: give one for each of several checkpoints."
        )
    if config.learning_rate is not None and len(places) < 2:
        raise InputError(
            "what decay alone would do is compared with what training did: with a learning_rate "
            "and a decay (--decay), give several checkpoints."
        )
    if checkpoint is None:
        ds = _of_recorded(config, streams, matrices)
    else:
        mixings = [_read(config, place) for place in places]
        ds = _of_checkpoint(config, mixings[-1], streams, matrices, progress)
        part = files_missing(places[-1]) if is_path(places[-1]) else None
        if part is not None:
            notes = [*json.loads(ds.attrs["notes"]), part]
            ds = ds.assign_attrs(notes=json.dumps(notes))
        if len(mixings) > 1:
            names = [os.fspath(place) for place in places]
            notes = [*json.loads(ds.attrs["notes"]), *order_note(config, names)]
            ds = ds.merge(trajectory(config, names, mixings)).assign_attrs(notes=json.dumps(notes))
    progress(1, 1, "done")
    told = {"streams": streams, "matrices": matrices}
    words = [_shown(place, "CHECKPOINT") for place in places if place is not None]
    for key, x in told.items():
        words += [] if x is None else [f"--{key}", _shown(x, "FILE")]
    command = shlex.join(["homojax", "audit", *words, *config.flags])
    place = os.fspath(places[-1]) if is_path(places[-1]) else ""
    return ds.assign_attrs(checkpoint=place, command=command)


def _places(checkpoint: Any) -> list[Any]:
    """Return checkpoints as a list: several are given as a list of paths."""
    if not isinstance(checkpoint, list | tuple) or not any(
        is_path(x) or isinstance(x, Mapping) for x in checkpoint
    ):
        return [checkpoint]
    if not all(map(is_path, checkpoint)):
        raise InputError(
            "several checkpoints are given as a list of paths, one file or folder each."
        )
    return list(checkpoint)


def _shown(place: Any, otherwise: str) -> str:
    return os.fspath(place) if is_path(place) else otherwise


def _read(config: Audit, checkpoint: Any) -> Mixing:
    if is_path(checkpoint):
        return mixing_of(checkpoint, config)
    return recognise(checkpoint_of(checkpoint), config)


def _of_checkpoint(
    config: Audit, mixing: Mixing, streams: Any, matrices: Any, progress: Progress
) -> xr.Dataset:
    layers = mixing.layers
    recorded: Iterator[Sample | None] = iter([None] * len(layers))
    if streams is not None:
        recorded = samples_of(layers, streams, "streams")
    elif matrices is not None:
        recorded = samples_of(layers, matrices, "matrices")
    certificates, samples = [], []
    for i, layer in enumerate(layers):
        progress(i, len(layers), layer.name)
        certificates.append(certify(layer))
        samples.append(next(recorded))
    return _assemble(config, mixing, certificates, samples)


def _of_recorded(config: Audit, streams: Any, matrices: Any) -> xr.Dataset:
    """Return what recorded matrices say by themselves."""
    if streams is not None:
        raise InputError("streams say nothing without the checkpoint that mixes them: give both.")
    if matrices is None:
        raise InputError("name a checkpoint, or recorded matrices: add --matrices.")
    mixing, samples = mixing_recorded(matrices, turned=config.orientation == "inputs-first")
    layers = mixing.layers
    judged = [judge_tokens(sample.values, config) for sample in samples]
    ds = xr.Dataset(_told(judged, layers), coords_of(layers))
    return _finish(config, ds.merge(of_tokens(samples)), judged, mixing, [], samples)


def _assemble(
    config: Audit,
    mixing: Mixing,
    certificates: list[Certificate],
    samples: Sequence[Sample | None],
) -> xr.Dataset:
    layers, together = mixing.layers, stacked(mixing.layers)
    each, matrices = _measure(layers)
    judged = [
        judge(layer, certificate, {key: x[i] for key, x in each.items()}, pair[1], config, sample)
        for i, (layer, certificate, pair, sample) in enumerate(
            zip(layers, certificates, matrices, samples, strict=True)
        )
    ]
    values = {**each, **certified(certificates)}
    variables: dict[str, Any] = {
        name: ("layer", values[name], attrs_of(about)) for name, about in described().items()
    }
    for i, name in enumerate(("matrix", "matrix_converged")):
        text = {"long_name": f"M, {('as run', 'converged')[i]}", "units": "1"}
        variables[name] = (("layer", "row", "col"), padded([pair[i] for pair in matrices]), text)
    variables |= _told(judged, layers)
    if config.search:
        variables |= _found(layers)
    ds = xr.Dataset(variables, coords_of(layers)).merge(_stack(config, layers, matrices, together))
    if any(sample is not None for sample in samples):
        ds = ds.merge(of_tokens(samples))
    ds = _finish(config, ds, judged, mixing, certificates, samples)
    which = np.flatnonzero(together)

    def decided(verdict: Verdict, certainty: str) -> Verdict:
        return "none" if certainty == "undecidable" else verdict

    advice = advise(
        [layers[k] for k in which],
        [decided(judged[k].verdict, judged[k].certainty) for k in which],
        decided(ds.attrs["verdict"], ds.attrs["certainty"]),
        config,
    )
    return ds.assign_attrs(advice=json.dumps([one._asdict() for one in advice]))


def _told(judged: list[Judged], layers: tuple[Layer, ...]) -> dict[str, Any]:
    """Return the verdicts about layers as variables."""
    told: dict[str, Any] = {
        field: ("layer", words(getattr(one, field) for one in judged))
        for field in ("verdict", "certainty", "reason")
    }
    return {**told, "stacked": ("layer", stacked(layers))}


def _finish(
    config: Audit,
    ds: xr.Dataset,
    judged: list[Judged],
    mixing: Mixing,
    certificates: list[Certificate],
    samples: Sequence[Sample | None],
) -> xr.Dataset:
    """Return the Dataset with what the stack is, and all that is told beside it."""
    which = np.flatnonzero(ds.stacked.values).tolist()
    own = [sample for sample in (samples[k] for k in which) if sample is not None]
    tokens = products(own) if len(own) == len(which) else None
    if tokens is not None:
        attrs = {"units": "1", "long_name": "share of detail that all layers keep at most"}
        ds = ds.assign(
            {f"{key}_sample": ("quantile", quantiles(x), attrs) for key, x in tokens.items()}
        )
    elif not certificates:
        raise InputError(
            "layers have recordings of different numbers of tokens: record the same tokens of all."
        )
    told = judge_whole(config, ds, judged, mixing.layers, certificates, tokens)
    notes = notes_of(ds, samples, tokens, verdict=told["verdict"])
    if not certificates:
        notes.append(_of_matrices_alone(config))
    if mixing.skipped:
        skipped = counted(len(mixing.skipped), "tensor")
        notes.append(f"In no product, since skipped: {skipped} that may be mixing.")
    return ds.assign_attrs(
        **provenance("audit", config, dtype="float64"),
        **told,
        notes=json.dumps(notes),
        advice="[]",
        skipped=json.dumps([one._asdict() for one in mixing.skipped]),
    )


def _of_matrices_alone(config: Audit) -> str:
    """Say which way recorded matrices are taken where no checkpoint tells it."""
    if config.orientation == "inputs-first":
        taken = "as those of y = Mᵀ x (--orientation inputs-first)."
    else:
        taken = (
            "as those of y = M x; where the model mixes with the transpose, add --orientation "
            "inputs-first."
        )
    return f"Matrices are taken {taken} For advice, give the checkpoint, too."


# ---------------------------------------------------------------- layers


def _measure(
    layers: tuple[Layer, ...],
) -> tuple[dict[str, np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
    """Return what is measured of each layer, and its matrix as run and converged."""
    found: dict[str, np.ndarray] = {}
    matrices: list[Any] = [None] * len(layers)
    for n in sorted({layer.n for layer in layers}):
        which = [i for i, layer in enumerate(layers) if layer.n == n]
        made = measures.matrices_of([layers[i] for i in which])
        own = measures.measure_each(made.run)
        own |= {f"{key}_converged": x for key, x in measures.measure_each(made.converged).items()}
        own |= {"gap_converged": made.gap, "error": made.error}
        own |= {"response_converged": measures.least_responses(made.converged)}
        for key, x in own.items():
            found.setdefault(key, np.full(len(layers), np.nan))[which] = x
        for k, i in enumerate(which):
            matrices[i] = made.run[k], made.converged[k]
    return found, matrices


def _found(layers: tuple[Layer, ...]) -> dict[str, Any]:
    """Return what tokens attain that were found by gradient: NaN where nothing depends on them."""
    alike: dict[tuple[Preset, int], list[int]] = {}
    for i, layer in enumerate(layers):
        if layer.dynamic and layer.preset.num_iters is not None:
            alike.setdefault((layer.preset, layer.n), []).append(i)
    found = {name: np.full(len(layers), np.nan) for name in ("gap_found", "sum_error_found")}
    size = max(layer.base.size for layer in layers)
    direction = np.full((len(layers), size), np.nan)
    for which in alike.values():
        own = [layers[i] for i in which]
        found["gap_found"][which] = [worst.value for worst in smallest_gaps(own)]
        for i, worst in zip(which, largest_sum_errors(own), strict=True):
            found["sum_error_found"][i] = worst.value
            direction[i, : len(worst.direction)] = worst.direction
    attrs = {"long_name": "rmsnorm(x) = Φᵀ this attains sum_error_found"}
    return {
        **{name: ("layer", x, attrs_of(FOUND[name])) for name, x in found.items()},
        "sum_error_direction": (("layer", "parameter"), direction, attrs),
    }


# ---------------------------------------------------------------- the stack


def _stack(
    config: Audit,
    layers: tuple[Layer, ...],
    matrices: list[tuple[np.ndarray, np.ndarray]],
    together: np.ndarray,
) -> xr.Dataset:
    """Return what is measured of the stack: products from its first layer on, and reach."""
    which = np.flatnonzero(together)
    index = {"layer": ("layer", np.arange(1, len(layers) + 1))}
    variables: dict[str, Any] = {}
    for i, end in enumerate(("", "_converged")):
        kind = "converged" if end else "as run"
        stack = np.stack([matrices[k][i] for k in which])
        found = measures.measure_stack(stack, config.retention)
        for name, (units, text) in {**OF_STACK, **DEPTHS}.items():
            value = found[name]
            if name in OF_STACK:
                value = np.full(len(layers), np.nan)
                value[which] = found[name]
            attrs = {"long_name": f"{text}, {kind}", "units": units}
            variables[name + end] = (("layer",) if name in OF_STACK else (), value, attrs)
        reach = _reach([layers[k] for k in which], stack)
        if reach is not None:
            attrs = {"long_name": f"read at the reader of what layer wrote, {kind}", "units": "1"}
            whole = np.full((len(layers), len(layers)), np.nan)
            whole[np.ix_(which, which)] = reach
            variables[f"reach{end}"] = (("layer", "reader"), whole, attrs)
    if "reach" in variables:
        index["reader"] = ("reader", np.arange(1, len(layers) + 1))
    return xr.Dataset(variables, index)


def _reach(layers: list[Layer], stack: np.ndarray) -> np.ndarray | None:
    """Return the reach map where all layers have weights of reading and writing."""
    read = [layer.read for layer in layers if layer.read is not None]
    write = [layer.write for layer in layers if layer.write is not None]
    if len(read) < len(layers) or len(write) < len(layers):
        return None
    return measures.reach(stack, np.stack(read), np.stack(write))
