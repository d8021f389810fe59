"""Hooks on a running model: what they record, and that they disturb nothing."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import homojax as hj
from homojax.lab.audit.torch import MixingMonitor
from homojax.lab.inputs import InputError


class Tensor:
    """As much of a torch.Tensor as the monitor uses."""

    def __init__(self, array):
        self.array = np.asarray(array)
        self.shape = self.array.shape

    def detach(self):
        return self

    def float(self):
        return Tensor(self.array.astype(np.float32))

    def cpu(self):
        return self

    def numpy(self):
        return self.array

    def reshape(self, *shape):
        return Tensor(self.array.reshape(*shape))

    def __len__(self):
        return len(self.array)

    def __getitem__(self, which):
        return Tensor(self.array[which])


class Module:
    """A module with forward hooks, as torch calls them."""

    def __init__(self, forward):
        self.forward, self.hooks = forward, {}

    def register_forward_hook(self, hook, *, with_kwargs):
        assert with_kwargs
        return self._keep(lambda args, kwargs, output: hook(self, args, kwargs, output), "after")

    def register_forward_pre_hook(self, hook, *, with_kwargs):
        assert with_kwargs
        return self._keep(lambda args, kwargs, output: hook(self, args, kwargs), "before")

    def _keep(self, hook, when):
        key = len(self.hooks)
        self.hooks[key] = when, hook
        return SimpleNamespace(remove=lambda: self.hooks.pop(key))

    def _call(self, when, *given):
        # torch takes anything else for a new input or output
        assert all(hook(*given) is None for kind, hook in self.hooks.values() if kind == when)

    def __call__(self, *args, **kwargs):
        self._call("before", args, kwargs, None)
        output = self.forward(*args, **kwargs)
        self._call("after", args, kwargs, output)
        return output


class Model:
    """Two sublayers that make a matrix of their streams, as DeepSeek's layout has them."""

    def __init__(self, tensors, names):
        self.parts = {name: Module(self._mix(tensors, name)) for name in names}

    @staticmethod
    def _mix(tensors, name):
        fn, base, scale = (tensors[f"{name}_{x}"].astype(float) for x in ("fn", "base", "scale"))

        def forward(streams):
            flat = streams.array.reshape(*streams.shape[:-2], -1)
            flat = flat / np.sqrt((flat**2).mean(-1, keepdims=True))
            logits = (scale[2] * flat @ fn[8:].T + base[8:]).reshape(*flat.shape[:-1], 4, 4)
            comb = np.exp(logits - logits.max(-1, keepdims=True))
            comb = comb / comb.sum(-1, keepdims=True) + 1e-6
            comb = comb / (comb.sum(-2, keepdims=True) + 1e-6)
            for _ in range(19):
                comb = comb / (comb.sum(-1, keepdims=True) + 1e-6)
                comb = comb / (comb.sum(-2, keepdims=True) + 1e-6)
            return Tensor(flat), Tensor(comb)

        return forward

    def named_modules(self):
        return [("", self), *((f"model.{name}", part) for name, part in self.parts.items())]

    def __call__(self, streams):
        for part in self.parts.values():
            part(streams)


@pytest.fixture
def model(models):
    tensors = models["deepseek-v4"].tensors
    names = sorted({name.rsplit("_", 1)[0] for name in tensors})
    return tensors, Model(tensors, names)


def test_streams_and_matrices_of_a_running_model_are_audited_alike(model, tmp_path, rng):
    tensors, running = model
    streams = Tensor(rng.normal(size=(3, 7, 4, 6)))
    found = {}
    for kind in ("streams", "matrices"):
        with MixingMonitor(running, "layers.*.hc_*", kind=kind) as monitor:
            running(streams)
        monitor.save(tmp_path / f"{kind}.npz")
        given: Any = {kind: tmp_path / f"{kind}.npz"}
        found[kind] = hj.audit(tensors, **given)
        assert (found[kind].tokens == 21).all() and (found[kind].outside == 0).all()
    by_streams, by_matrices = (found[kind].sigma2_sample for kind in ("streams", "matrices"))
    np.testing.assert_allclose(by_streams, by_matrices, atol=1e-5)


def test_no_more_tokens_are_kept_than_asked_and_the_same_of_each_module(model, rng):
    _, running = model
    with MixingMonitor(running, "*hc_*", tokens=10) as monitor:
        for _ in range(3):
            running(Tensor(rng.normal(size=(2, 4, 4, 6))))
    arrays = list(monitor.arrays().values())
    assert {len(x) for x in arrays} == {10}
    assert all(np.array_equal(arrays[0], x) for x in arrays)
    running(Tensor(rng.normal(size=(2, 4, 4, 6))))  # the hooks are gone
    assert not any(part.hooks for part in running.parts.values())


def test_a_model_runs_on_where_nothing_can_be_recorded(model, rng):
    _, running = model
    monitor = MixingMonitor(running, "*hc_*", pick=lambda inputs, output: output[7])
    running(Tensor(rng.normal(size=(2, 4, 6))))
    with pytest.raises(InputError, match=r"streams of .* could not be recorded: TypeError"):
        monitor.arrays()
    with pytest.raises(InputError, match="nothing was recorded: run the model first"):
        MixingMonitor(running, "*hc_*").save("x.npz")
    with pytest.raises(InputError, match=r'no module is called "h\.\*": the model has mod'):
        MixingMonitor(running, "h.*")
    with pytest.raises(InputError, match=r"must end in \.npz"):
        monitor.save("x.safetensors")


def test_streams_given_by_keyword_and_changed_in_place_are_those_before_the_module():
    def forward(streams):
        streams.array *= 0
        return streams

    part = Module(forward)
    model = SimpleNamespace(named_modules=lambda: [("h.0.attn_hc", part)])
    with MixingMonitor(model, "h.*") as monitor:
        part(streams=Tensor(np.ones((3, 4, 6))))
    assert (monitor.arrays()["h.0.attn_hc"] == 1).all()
    with pytest.raises(InputError, match='kind = "matrix" is none: did you mean "matrices"'):
        MixingMonitor(model, "h.*", kind="matrix")  # pyright: ignore[reportArgumentType]


def test_what_checkpointing_computes_again_is_recorded_once():
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")
    from torch.utils.checkpoint import checkpoint

    part = torch.nn.Sequential(torch.nn.Linear(6, 6))
    with MixingMonitor(part, "0", kind="streams") as monitor:
        streams = torch.randn(5, 4, 6, requires_grad=True)
        checkpoint(part, streams, use_reentrant=False).sum().backward()
    assert len(monitor.arrays()["0"]) == 5


def test_it_records_a_model_of_pytorch(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install torch")

    class Mixing(torch.nn.Module):
        def forward(self, streams):
            return torch.softmax(streams @ streams.transpose(-1, -2), -1)

    model = torch.nn.Sequential(Mixing())
    with MixingMonitor(model, "0", kind="matrices") as monitor:
        streams = torch.randn(5, 4, 6, dtype=torch.bfloat16, requires_grad=True)
        model(streams).sum().backward()
    monitor.save(tmp_path / "m.npz")
    ds = hj.audit(matrices=tmp_path / "m.npz")
    assert ds.tokens.values.tolist() == [5] and ds.verdict.values.tolist() == ["unconverged"]
    assert streams.grad is not None
