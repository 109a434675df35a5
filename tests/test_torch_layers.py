# SPDX-License-Identifier: Apache-2.0
"""`backstride.torch`: its layers beside PyTorch's, models made faster in place, functions of layers as modules."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, remove_weight_norm, weight_norm

import backstride as tf
import backstride.torch as bt
from backstride._backends import torch_operators as operators
from backstride.torch import _accelerate

# What PyTorch itself warns of.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*functools.lru_cache.*:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning"),
]

PAIRS: dict[int, tuple[Any, Any]] = {
    1: (nn.ConvTranspose1d, bt.ConvTranspose1d),
    2: (nn.ConvTranspose2d, bt.ConvTranspose2d),
    3: (nn.ConvTranspose3d, bt.ConvTranspose3d),
}
RANKS = pytest.mark.parametrize("rank", PAIRS)
WINDOWS: dict[str, dict[str, Any]] = {
    "plain": {},
    "stride": {"stride": 2, "padding": 1, "output_padding": 1},
    "groups": {"stride": 2, "groups": 2, "dilation": 2},
    "dilation": {"stride": 2, "dilation": 3, "output_padding": 2},
    "no-bias": {"stride": 3, "padding": 2, "bias": False},
}


@pytest.fixture(autouse=True)
def same_numbers_every_time() -> None:
    torch.manual_seed(0)


def integers(module: nn.Module) -> None:
    """Small integers for parameters, so that any order of sums is exact."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randint(-3, 4, parameter.shape))


def formats(x: Tensor) -> list[Tensor]:
    """The same input in the memory formats of its rank."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}
    return [x, x.to(memory_format=last[x.ndim])] if x.ndim in last else [x, x.mT.contiguous().mT]


# Layers


@RANKS
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS)
def test_a_layer_is_pytorchs(rank: int, window: dict[str, Any], training: bool) -> None:
    theirs, ours = (layer(4, 6, 4, **window).train(training) for layer in PAIRS[rank])
    integers(theirs)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(ours.state_dict())
    for x in formats(torch.randint(-3, 4, (2, 4, *[5, 4, 3][:rank])).float()):
        for _ in range(2):
            with torch.inference_mode():
                got, want = ours(x), theirs(x)
            assert torch.equal(got, want)
            assert (got.stride(1) < got.stride(-1)) is (x.stride(1) < x.stride(-1))
        got, want = ours(x.clone().requires_grad_()), theirs(x)
        assert torch.equal(got, want)
        for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            pair = [
                torch.autograd.grad(y.square().sum(), p, retain_graph=True)[0] for y, p in ((got, one), (want, other))
            ]
            assert torch.equal(*pair)
    assert torch.equal(ours(x[0]), theirs(x[0]))
    assert repr(ours) == repr(theirs)


@RANKS
def test_output_sizes_of_pytorch(rank: int) -> None:
    theirs, ours = (layer(3, 2, 3, stride=3, padding=1) for layer in PAIRS[rank])
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, *[4] * rank)
    for length in (10, 11, 12):
        assert_allclose(ours(x, [length] * rank).detach(), theirs(x, [length] * rank).detach(), rtol=1e-5, atol=1e-5)
    for layer in (theirs, ours):
        with pytest.raises(ValueError, match="requested an output size"):
            layer(x, [13] * rank)


@RANKS
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_is_tensorflows(rank: int, padding: str) -> None:
    layer = PAIRS[rank][1](3, 4, 5, stride=2, padding=padding)
    integers(layer)
    x = torch.randint(-3, 4, (2, 3, *[4] * rank)).float()
    filters = layer.weight.permute(*range(2, rank + 2), 1, 0)
    for asked in (None, [7] * rank if padding == "same" else [12] * rank):
        chosen = [8] * rank if padding == "same" else [11] * rank
        shape = [2, 4, *(chosen if asked is None else asked)]
        form = ("NCW", "NCHW", "NCDHW")[rank - 1]
        want = tf.nn.conv_transpose(x, filters, shape, 2, padding.upper(), form)
        assert torch.equal(layer(x, asked), want + layer.bias.reshape(-1, *[1] * rank))
    with pytest.raises(ValueError, match=r"`output_size` 20 does not fit an input of length 4; \d+ to \d+ would fit"):
        layer(x, [20] * rank)
    assert f"padding={padding}" in repr(layer)


def test_what_constructors_refuse() -> None:
    with pytest.raises(ValueError, match="`padding` must be ints, 'same' or 'valid'; got padding='full'"):
        bt.ConvTranspose2d(1, 1, 2, padding="full")
    with pytest.raises(ValueError, match="`output_padding` goes with a padding of ints"):
        bt.ConvTranspose2d(1, 1, 2, 2, "same", 1)
    layer = bt.ConvTranspose2d(3, 1, 2)
    with pytest.raises(ValueError, match=r"`input` must have 4 or 3 dimensions; got shape \(2, 2\)"):
        layer(torch.ones(2, 2))
    with pytest.raises(ValueError, match=r"the input of shape .* do not fit"):
        layer(torch.ones(1, 4, 5, 5))
    with pytest.raises(ValueError, match="would have a result of lengths"):
        bt.ConvTranspose2d(3, 1, 2, padding=9)(torch.ones(1, 3, 5, 5))
    with pytest.raises(TypeError, match="must be of one dtype"):
        layer(torch.ones(1, 3, 5, 5, dtype=torch.float64))


# Packed weights


@pytest.mark.parametrize("wrong", [{"stride": 0}, {"dilation": 0}])
def test_what_calls_refuse(wrong: dict[str, Any]) -> None:
    """PyTorch makes such layers, and refuses to call them."""
    ((name, _),) = wrong.items()
    with pytest.raises(ValueError, match=rf"`{name}` must be 2 ints of at least 1; got {name}=\[0, 0\]"):
        bt.ConvTranspose2d(3, 2, 3, **wrong)(torch.ones(1, 3, 4, 4))
    for size in (8, [8], [2, 8, 8]):
        with pytest.raises(ValueError, match="`output_size` must be 2 lengths, or a batch and channels before them"):
            bt.ConvTranspose2d(3, 2, 3, 2, padding="same")(torch.ones(1, 3, 4, 4), output_size=size)  # type: ignore[arg-type]
    assert bt.ConvTranspose2d(3, 2, 3, 2, 1)(torch.ones(3, 4, 4), output_size=[2, 8, 8]).shape == (2, 8, 8)
    with pytest.raises(TypeError, match=r"`input` must be a torch.Tensor; got numpy.ndarray"):
        bt.ConvTranspose2d(3, 2, 3)(np.ones((1, 3, 4, 4), np.float32))


def packed(layer: nn.Module) -> Any:
    return operators._kept.get(layer.weight)


def test_a_weight_is_packed_once_and_again_after_a_change() -> None:
    layer = bt.ConvTranspose2d(3, 4, 4, 2, 1).eval()
    x = torch.randn(1, 3, 5, 5)
    with torch.inference_mode():
        first = layer(x)
        kept = packed(layer)
        layer(torch.randn(4, 3, 7, 5))
    assert kept is packed(layer) is not None
    with torch.no_grad():
        layer.weight.mul_(2)
        layer.bias.mul_(2)
        assert_allclose(layer(x), 2 * first.clone(), rtol=1e-5, atol=1e-6)
        assert packed(layer) is not kept
        kept = packed(layer)
        with tf.precision("strict"):
            layer(x)
        assert packed(layer) is not kept
        layer.weight.data.mul_(0)  # is not noticed
        layer.eval()
        assert packed(layer) is None
        assert torch.equal(layer(x), layer.bias.reshape(-1, 1, 1).expand(1, 4, 10, 10))


def test_no_weight_is_kept_in_training_or_with_gradients() -> None:
    layer = bt.ConvTranspose1d(3, 4, 4)
    x = torch.randn(1, 3, 5)
    with torch.no_grad():
        layer(x)
    assert packed(layer) is None
    layer.eval()(x)
    assert packed(layer) is None
    layer.requires_grad_(False)(x)
    assert packed(layer) is not None
    count = len(operators._kept)
    del layer
    assert len(operators._kept) == count - 1


def test_an_optimizers_step_is_seen() -> None:
    layer = bt.ConvTranspose1d(3, 4, 4).eval()
    x = torch.randn(1, 3, 5)
    optimizer = torch.optim.Adam(layer.parameters())
    with torch.no_grad():
        layer(x)
    layer(x).square().sum().backward()
    optimizer.step()
    with torch.no_grad():
        got = layer(x)
    plain = nn.functional.conv_transpose1d(x, layer.weight, layer.bias)
    assert_allclose(got, plain.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normalize", [lambda layer: layer, parametrizations.weight_norm, weight_norm])
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.Adam])
def test_a_fused_optimizers_step_is_seen(optimizer: Any, normalize: Any) -> None:
    """It makes no new versions of parameters."""
    layer = normalize(bt.ConvTranspose1d(3, 4, 4)).eval()
    x = torch.randn(1, 3, 5)
    with torch.no_grad():
        layer(x)
    layer(x).square().sum().backward()
    optimizer(layer.parameters(), lr=0.1, fused=True).step()
    with torch.no_grad():
        got, plain = layer(x), nn.functional.conv_transpose1d(x, layer.weight, layer.bias)
    assert_allclose(got, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("normalize", [lambda layer: layer, parametrizations.weight_norm, weight_norm])
def test_other_memory_and_dtypes_of_parameters_are_seen(normalize: Any) -> None:
    layer = normalize(bt.ConvTranspose1d(3, 4, 4)).eval()
    x = torch.randn(1, 3, 5)

    def check(x: Tensor) -> None:
        with torch.no_grad():
            got, twice = layer(x), layer(x)
            plain = nn.functional.conv_transpose1d(x, layer.weight, layer.bias)
        assert torch.equal(got, twice)
        assert_allclose(got, plain, rtol=1e-5, atol=1e-5)

    check(x)
    for _ in range(3):
        for _ in range(2):  # the second time it may be the memory of before
            for parameter in layer.parameters():
                parameter.data = parameter.data * 2
        check(x)
    count = sum(parameter.numel() for parameter in layer.parameters())
    nn.utils.vector_to_parameters(torch.randn(count), layer.parameters())
    check(x)
    layer.double()
    check(x.double())
    layer.float()
    check(x)


def test_inference_tensors_are_normalized_in_every_call() -> None:
    with torch.inference_mode():
        layer = weight_norm(bt.ConvTranspose1d(3, 4, 4, bias=False)).eval()
        x = torch.randn(1, 3, 5)
        before = layer(x).clone()
        layer.weight_g.mul_(2)
        assert_allclose(layer(x), 2 * before, rtol=1e-5)


def test_parameters_may_be_swapped() -> None:
    layer = bt.ConvTranspose1d(3, 4, 4).eval()
    with torch.no_grad():
        layer(torch.randn(1, 3, 5))
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        layer.double()
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)
    assert layer(torch.randn(1, 3, 5).double()).dtype == torch.float64


@pytest.mark.parametrize("normalize", [parametrizations.weight_norm, weight_norm, parametrizations.spectral_norm])
def test_a_normalized_weight_is_computed_once(normalize: Any) -> None:
    theirs, ours = (normalize(layer(3, 4, 4, 2)) for layer in PAIRS[2])
    ours.load_state_dict(theirs.state_dict())
    theirs.eval()
    ours.eval()
    x = torch.randn(1, 3, 5, 5)
    count = len(operators._kept)
    for _ in range(2):
        with torch.inference_mode():
            assert_allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    assert len(operators._kept) == count + 1
    with torch.no_grad():
        for layer in (theirs, ours):
            for parameter in layer.parameters():
                parameter.mul_(1.5)
        assert_allclose(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    ours(x).sum().backward()
    assert all(parameter.grad is not None for parameter in ours.parameters())
    ours.train()
    assert len(operators._kept) <= count + 1


def test_an_unknown_parametrization_is_computed_in_every_call() -> None:
    class Rising(nn.Module):
        calls = 0

        def forward(self, weight: Tensor) -> Tensor:
            Rising.calls += 1
            return weight * Rising.calls

    layer = bt.ConvTranspose1d(3, 4, 4, bias=False)
    parametrize.register_parametrization(layer, "weight", Rising())
    layer.eval()
    x = torch.randn(1, 3, 5)
    with torch.no_grad():
        before, first, second = Rising.calls, layer(x), layer(x)
    assert_allclose(second / first, (before + 2) / (before + 1), rtol=1e-5)


# Models


class Model(nn.Module):
    """Layers of every kind: plain, parametrized, normalized the old way, shared, and one that is not PyTorch's own."""

    class Special(nn.ConvTranspose2d):
        pass

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ConvTranspose2d(3, 4, 4, 2, 1)
        self.norm = nn.BatchNorm2d(4)
        self.second = parametrizations.weight_norm(nn.ConvTranspose2d(4, 4, 3, 1, 1))
        self.third = weight_norm(nn.ConvTranspose2d(4, 4, 2, 2))
        self.again = nn.ModuleList([self.first])
        self.special = Model.Special(4, 3, 3)
        self.unused = nn.ConvTranspose2d(1, 1, 1)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        x = self.norm(self.again[0](x))
        x = self.third(torch.relu(self.second(torch.relu(x))))
        return self.special(x) * scale


NAMES = ["first", "second", "third"]
X = torch.linspace(-1, 1, 2 * 3 * 5 * 5).reshape(2, 3, 5, 5)


@pytest.mark.parametrize("training", [True, False])
def test_an_accelerated_model_computes_the_same(training: bool) -> None:
    model, reference = Model().train(training), Model().train(training)
    reference.load_state_dict(model.state_dict())
    done = bt.accelerate(model)
    assert done.replaced == [*NAMES, "unused"]
    assert done.left == {"special": "its type Model.Special is not PyTorch's own"}
    assert {name: type(module) for name, module in model.named_children() if name in NAMES} == {
        "first": bt.ConvTranspose2d,
        "second": type(model.second),
        "third": bt.ConvTranspose2d,
    }
    assert isinstance(model.second, bt.ConvTranspose2d)
    assert model.state_dict().keys() == reference.state_dict().keys()
    for one in (model, reference):
        one(X).square().sum().backward()
    assert_allclose(model(X).detach(), reference(X).detach(), rtol=1e-4, atol=1e-5)
    for (name, one), (_, other) in zip(model.named_parameters(), reference.named_parameters(), strict=True):
        if "unused" not in name:
            assert_allclose(one.grad, other.grad, rtol=1e-3, atol=1e-3, err_msg=name)
    assert bt.accelerate(model).left["first"] == "backstride computes it already"
    assert bt.restore(model) == [*NAMES, "unused"]
    assert bt.restore(model) == []
    assert type(model.first) is nn.ConvTranspose2d
    assert not isinstance(model.second, bt.ConvTranspose2d)
    with torch.no_grad():
        reference.load_state_dict(model.state_dict())
        assert torch.equal(model.eval()(X), reference.eval()(X))


def test_copies_and_files_of_an_accelerated_model() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(3, 4, 4, 2, 1), nn.Tanh()).eval()
    bt.accelerate(model)
    with torch.no_grad():
        want = model(X)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            assert torch.equal(other(X), want)
            assert bt.restore(other) == ["0"]
            assert isinstance(model[0], bt.ConvTranspose2d)
        file = io.BytesIO()
        torch.save(model.state_dict(), file)
        file.seek(0)
        fresh = nn.Sequential(nn.ConvTranspose2d(3, 4, 4, 2, 1), nn.Tanh())
        fresh.load_state_dict(torch.load(file))
        assert_allclose(fresh(X), want, rtol=1e-5, atol=1e-6)


def test_parametrizations_and_norms_can_still_be_removed() -> None:
    model = Model().eval()
    bt.accelerate(model)
    with torch.no_grad():
        want = model(X)
        copied = copy.deepcopy(model)
        assert bt.restore(copied) == [*NAMES, "unused"]
        assert_allclose(copied(X), want, rtol=1e-5, atol=1e-6)
        parametrize.remove_parametrizations(model.second, "weight")
        remove_weight_norm(model.third)
        assert type(model.second) is bt.ConvTranspose2d
        assert_allclose(model(X), want, rtol=1e-5, atol=1e-6)
        assert bt.restore(model) == [*NAMES, "unused"]
        assert type(model.second) is nn.ConvTranspose2d


def test_hooks_stay() -> None:
    model, seen = nn.Sequential(nn.ConvTranspose2d(3, 4, 4)), []
    model[0].register_forward_hook(lambda module, args, result: seen.append(result.shape))
    bt.accelerate(model, X)
    seen.clear()
    model(X)
    assert seen == [(2, 4, 8, 8)]
    assert len(model[0]._forward_hooks) == 1
    assert not model[0]._forward_pre_hooks


def test_an_accelerated_model_compiles() -> None:
    torch._dynamo.reset()
    model = nn.Sequential(nn.ConvTranspose2d(3, 4, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(4, 3, 3)).eval()
    bt.accelerate(model)
    compiled = torch.compile(model, fullgraph=True, dynamic=True, backend="aot_eager")
    for x in (X, X[:1, :, :4], torch.randn(3, 3, 6, 7)):
        with torch.no_grad():
            assert torch.equal(compiled(x), model(x))
        assert_allclose(compiled(x).detach(), model(x).detach(), rtol=1e-5, atol=1e-6)
    torch._dynamo.reset()


@pytest.mark.parametrize(("faster", "left"), [("theirs", NAMES), ("ours", [])])
def test_an_example_decides(faster: str, left: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By times that are made up: of each layer that the example reaches, PyTorch's first."""
    measured: dict[str, list[Tensor]] = {"torch": [], "backstride": []}

    def timed(call: Any) -> tuple[Tensor, float]:
        whose = call.func.__module__.partition(".")[0]
        measured[whose].append(call())
        return measured[whose][-1], 1.0 if (whose == "torch") is (faster == "theirs") else 2.0

    monkeypatch.setattr(_accelerate, "_timed", timed)
    monkeypatch.setattr(_accelerate, "_BUDGET", 0)
    for example in (X, (X,), [X, 2.0], {"x": X, "scale": 3.0}):
        model = Model().train()
        for results in measured.values():
            results.clear()
        state = copy.deepcopy(model.state_dict())
        done = bt.accelerate(model, example)
        assert [y.shape for y in measured["torch"]] == 4 * [(2, 4, 10, 10), (2, 4, 10, 10), (2, 4, 20, 20)]
        for one, other in zip(*measured.values(), strict=True):
            assert_allclose(one, other, rtol=1e-4, atol=1e-5)
        assert done.replaced == [name for name in NAMES if name not in left]
        assert {name: done.left[name] for name in left} == dict.fromkeys(left, "PyTorch takes 0.50 of the time")
        assert done.left["unused"] == "the example did not reach it"
        assert all(part.training and "forward" not in vars(part) for part in model.modules())
        assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_the_cost_model_decides_without_an_example() -> None:
    """Of one channel and many dilated taps, and layers that look a little like it."""
    layers = {
        "dilated": nn.ConvTranspose1d(128, 1, 1024, 2, dilation=2),
        "istft": nn.ConvTranspose1d(1026, 1, 1024, 256),
        "vocoder": nn.ConvTranspose1d(32, 1, 16, 8),
        "patches": nn.ConvTranspose2d(768, 3, 16, 16),
        "depthwise": nn.ConvTranspose2d(64, 64, 4, 2, groups=64),
        "volume": nn.ConvTranspose3d(64, 64, 2, 2),
    }
    model = nn.ModuleDict(layers)
    assert bt.accelerate(model).left == {"dilated": "PyTorch is expected to be faster; `example_inputs` would tell"}
    assert type(model["dilated"]) is nn.ConvTranspose1d


def test_layers_are_measured() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(3, 4, 4))
    done = bt.accelerate(model, X)
    assert sorted([*done.replaced, *done.left]) == ["0"]


def test_what_is_left() -> None:
    model = nn.ModuleDict(
        {
            "meta": nn.ConvTranspose1d(1, 1, 1, device="meta"),
            "complex": nn.ConvTranspose1d(1, 1, 1, dtype=torch.complex64),
            "ours": bt.ConvTranspose1d(1, 1, 1),
            "lazy": nn.LazyConvTranspose1d(1, 1),
            "patched": nn.ConvTranspose1d(1, 1, 1),
            "stride": nn.ConvTranspose1d(1, 1, 1, stride=0),
            "far": nn.ConvTranspose1d(1, 1, 1, dilation=2**61),
        }
    )
    model["patched"].forward = lambda x: x
    done = bt.accelerate(model)
    assert done.replaced == []
    assert done.left == {
        "meta": "it is on meta",
        "complex": "its dtype is torch.complex64",
        "ours": "backstride computes it already",
        "lazy": "its type LazyConvTranspose1d is not PyTorch's own",
        "patched": "its forward is not its type's",
        "stride": "its stride is (0,)",
        "far": f"its dilation is ({2**61},)",
    }
    assert bt.restore(model) == []
    with pytest.raises(TypeError, match=r"`model` must be a torch.nn.Module; got int"):
        bt.accelerate(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`model` must be a torch.nn.Module; got int"):
        bt.restore(3)  # type: ignore[arg-type]


# Functions as modules


def decoder(x: Any) -> Any:
    scale = tf.get_variable("scale", [1], initializer=tf.ones_initializer(), trainable=False)
    with tf.variable_scope("decoder"):
        x = tf.layers.conv2d_transpose(
            x, 4, 3, 2, padding="same", activation="relu", kernel_constraint="non_neg", kernel_regularizer="l2"
        )
        return tf.tanh(tf.layers.conv2d_transpose(x, 3, 3, 2, padding="same", name="last")) * scale.value


WEIGHTS = [
    "decoder/conv2d_transpose/kernel",
    "decoder/conv2d_transpose/bias",
    "decoder/last/kernel",
    "decoder/last/bias",
]
IMAGE = np.linspace(-1, 1, 2 * 3 * 3 * 2).reshape(2, 3, 3, 2).astype(np.float32)


def test_a_function_is_a_module(tmp_path: Path) -> None:
    store = tf.VariableStore(seed=1)
    want = store.run(decoder, IMAGE)
    store.save(tmp_path / "weights.npz")
    x = torch.from_numpy(IMAGE)
    model = bt.module(decoder, seed=1)
    assert list(model.parameters()) == []
    assert_allclose(model(x).detach(), want.result, rtol=1e-4, atol=1e-6)
    assert [name for name, _ in model.named_parameters()] == WEIGHTS
    assert [name for name, _ in model.named_buffers()] == ["scale"]
    assert_allclose([loss.item() for loss in model.losses], want.losses, rtol=1e-5)
    parameters = dict(model.named_parameters())
    model(x)
    assert all(parameter is parameters[name] for name, parameter in model.named_parameters())
    for other in (bt.module(decoder), bt.module(decoder, seed=3)):
        other.load(tmp_path / "weights.npz")
        assert_allclose(other(x).detach(), want.result, rtol=1e-4, atol=1e-6)
    before = dict(other.named_parameters())
    with torch.no_grad():
        for parameter in before.values():
            parameter.zero_()
    other.load(tmp_path / "weights.npz")
    assert all(parameter is before[name] for name, parameter in other.named_parameters())
    other.save(tmp_path / "again.npz")
    again = tf.VariableStore()
    again.load(tmp_path / "again.npz")
    for name, value in again.values().items():
        assert_array_equal(value, store.values()[name])


def test_a_modules_copies_and_states() -> None:
    x = torch.from_numpy(IMAGE)
    model = bt.module(decoder, seed=1)
    want = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), want)
        assert not {id(parameter) for parameter in other.parameters()} & {id(p) for p in model.parameters()}
    other = bt.module(decoder, seed=2)
    assert not torch.equal(other(x), want)
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(x), want)
    zeros = {name: torch.zeros_like(value) for name, value in model.state_dict().items()}
    assert not torch.func.functional_call(model, zeros, (x,)).any()
    assert torch.equal(model(x), want)
    plain = bt.module(lambda x: tf.layers.conv2d_transpose(x, 3, 3))
    plain(x)
    assert plain.double()(x.double()).dtype == torch.float64


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_of_a_module_before_its_first_call(copied: Callable[[Any], Any], tmp_path: Path) -> None:
    x = torch.from_numpy(IMAGE)
    model = bt.module(decoder, seed=1)
    other = copied(model)
    assert torch.equal(other(x), model(x))
    assert list(copied(model).constrained()) == [WEIGHTS[0]]
    model.save(tmp_path / "weights.npz")
    loaded = bt.module(decoder, seed=2)
    loaded.load(tmp_path / "weights.npz")
    assert torch.equal(copied(loaded)(x), model(x))


def test_a_state_may_come_before_the_first_call() -> None:
    x = torch.from_numpy(IMAGE)
    model = nn.Sequential(bt.module(decoder, seed=1), nn.Flatten())
    want = model(x)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    other = nn.Sequential(bt.module(decoder, seed=2), nn.Flatten())
    other.load_state_dict(state)
    for value in state.values():
        value.zero_()
    assert torch.equal(copy.deepcopy(other)(x), want)
    assert torch.equal(other(x), want)
    other.load_state_dict(state)
    assert not other(x).any()
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict(state | {"0.more": torch.ones(1)})


def test_a_first_call_in_inference_mode_makes_parameters_that_can_be_trained() -> None:
    x = torch.from_numpy(IMAGE)
    model, other = bt.module(decoder, seed=1), bt.module(decoder, seed=1)
    with torch.inference_mode():
        want = model(x)
        assert want.is_inference()
    assert torch.equal(want, other(x))
    assert not any(tensor.is_inference() for tensor in (*model.parameters(), *model.buffers()))
    model(x).sum().backward()
    other(x).sum().backward()
    for parameter, same in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(parameter.grad, same.grad)


def test_a_first_call_with_numpys_arrays_makes_parameters() -> None:
    model = bt.module(decoder, seed=1)
    assert isinstance(model(IMAGE), Tensor)
    assert [name for name, _ in model.named_parameters()] == WEIGHTS
    assert torch.equal(model(IMAGE), model(torch.from_numpy(IMAGE)))


def test_a_module_trains_and_keeps_its_constraints() -> None:
    x = torch.from_numpy(IMAGE)
    model = nn.Sequential(bt.module(decoder, seed=1), nn.Flatten())
    model(x)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
    handle = bt.constrain(optimizer, model)
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        loss = (model(x) - 0.5).square().mean() + sum(model[0].losses)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        assert model[0].get_parameter(WEIGHTS[0]).min() >= 0
        assert model[0].get_parameter(WEIGHTS[2]).min() < 0
    assert losses[-1] < losses[0]
    handle.remove()
    with torch.no_grad():
        model[0].get_parameter(WEIGHTS[0]).fill_(-1)
    optimizer.step()
    assert model[0].get_parameter(WEIGHTS[0]).min() < 0


def test_layers_of_a_store_make_parameters() -> None:
    """An optimizer keeps hold of them when the store is assigned other values."""
    store = tf.VariableStore(seed=1)
    x = torch.from_numpy(IMAGE)
    layer = tf.layers.Conv2DTranspose(3, 3, 2, padding="same", name="up")
    with store:
        layer(x)
    kernel = store.trainable()["up/kernel"]
    assert isinstance(kernel, nn.Parameter)
    store.assign({"up/kernel": np.zeros(kernel.shape)})
    assert store.trainable()["up/kernel"] is kernel
    assert not kernel.any()
    with pytest.raises(TypeError, match="the variable 'up/kernel' holds NumPy arrays; got an array of torch"):
        other = tf.VariableStore()
        other.run(lambda: tf.layers.conv2d_transpose(IMAGE, 3, 3, name="up"))
        other.assign({"up/kernel": kernel})
    with pytest.raises(ValueError, match="in which some of these numbers of float64 don't fit"):
        store.assign({"up/kernel": torch.full(kernel.shape, 1e39, dtype=torch.float64)})
