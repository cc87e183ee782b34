"""Makes the models of the norms' benchmarks as modules of PyTorch, with the same parameters."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from experiments.benchmarks import pytorch

__all__ = ["Net", "decoder", "images", "perceptron"]


class Net(NamedTuple):
    """Holds a module of PyTorch whose parameters are those of a model in JAX.

    Attributes:
        module: the module.
        parameters: its parameters in the order of the other's leaves.
        axes: for each of them the axes that turn it into the other's layout.
    """

    module: Any
    parameters: Sequence[Any]
    axes: Sequence[tuple[int, ...]]

    def grads(self) -> list[np.ndarray]:
        """Returns the gradients that the last backward pass left, in the layout of JAX."""
        pairs = zip(self.parameters, self.axes, strict=True)
        return [parameter.grad.numpy().transpose(axes) for parameter, axes in pairs]


def _axes(parameter) -> tuple[int, ...]:
    # a kernel is [in, out] in JAX and [out, in] here; of a convolution [h, w, in, out] and [out, in, h, w]
    return {1: (0,), 2: (1, 0), 4: (2, 3, 1, 0)}[parameter.ndim]


def _loaded(module, parameters, leaves, tables=()) -> Net:
    """Copies the leaves into the parameters; those in ``tables`` are laid out alike."""
    torch = pytorch.load()
    axes = [(0, 1) if any(p is table for table in tables) else _axes(p) for p in parameters]
    with torch.no_grad():
        for parameter, leaf, order in zip(parameters, leaves, axes, strict=True):
            parameter.copy_(torch.from_numpy(np.array(leaf).transpose(np.argsort(order))))
    return Net(module, parameters, axes)


def perceptron(params: Sequence[tuple[jax.Array, jax.Array]]) -> Net:
    """Makes the classifier with ReLU layers."""
    torch = pytorch.load()
    linears = [torch.nn.Linear(*kernel.shape) for kernel, _ in params]
    layers = [part for linear in linears for part in (linear, torch.nn.ReLU())][:-1]
    parameters = [p for linear in linears for p in (linear.weight, linear.bias)]
    return _loaded(torch.nn.Sequential(*layers), parameters, [leaf for pair in params for leaf in pair])


def images(model: Any) -> Net:
    """Makes the classifier of images from a module of flax, ``module_norms.Images``; it takes ``[B, 3, h, w]``."""
    torch = pytorch.load()
    parts, convs, scales = [], [], []
    for conv, norm in zip(model.convs, model.norms, strict=True):
        *_, inputs, outputs = conv.kernel.shape
        stride = conv.strides if isinstance(conv.strides, int) else conv.strides[0]
        # With stride 2 and an even number of places, "SAME" pads behind only.
        pad = torch.nn.ZeroPad2d((1, 1, 1, 1) if stride == 1 else (0, 1, 0, 1))
        own = torch.nn.Conv2d(inputs, outputs, 3, stride), torch.nn.GroupNorm(4, outputs, eps=norm.epsilon)
        parts += [pad, *own, torch.nn.ReLU()]
        convs.append(own[0])
        scales.append(own[1])
    head = torch.nn.Linear(*model.head.kernel.shape)
    module = torch.nn.Sequential(*parts, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), head)
    # in the order of a state's leaves: by name, and a bias before its kernel or scale
    parameters = [p for part in (*convs, head, *scales) for p in (part.bias, part.weight)]
    return _loaded(module, parameters, jax.tree.leaves(nnx.state(model, nnx.Param)))


def decoder(params: dict[str, Any], heads: int) -> Net:
    """Makes the decoder of ``norms.transformer``."""
    torch = pytorch.load()
    nn, functional = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.first, self.second = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
            self.qkv, self.mix = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
            self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

        def forward(self, x):
            qkv = self.qkv(self.first(x)).view(*x.shape[:2], heads, -1).transpose(1, 2)
            mixed = functional.scaled_dot_product_attention(*qkv.chunk(3, -1), is_causal=True)
            x = x + self.mix(mixed.transpose(1, 2).reshape(x.shape))
            return x + self.down(functional.gelu(self.up(self.second(x)), approximate="tanh"))

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            (words, width), (length, _) = params["tokens"].shape, params["positions"].shape
            self.tokens, self.positions = nn.Embedding(words, width), nn.Embedding(length, width)
            self.blocks = nn.Sequential(*(Block(width) for _ in params["blocks"]))
            self.out = nn.Linear(width, words, bias=False)

        def forward(self, tokens):
            # One row of places for each example: Opacus takes the first axis of an input as the examples. It needs
            # them contiguous.
            places = torch.arange(tokens.shape[1]).expand(tokens.shape).contiguous()
            return self.out(self.blocks(self.tokens(tokens) + self.positions(places)))

    module = Decoder()
    parameters, leaves = [], []
    for block, p in zip(module.blocks, params["blocks"], strict=True):
        # in the order of a dictionary's leaves in JAX
        weights = block.down, block.mix, block.qkv, block.first, block.second, block.up
        parameters += [part.weight for part in weights]
        leaves += jax.tree.leaves(p)
    tables = module.positions.weight, module.tokens.weight
    parameters += [module.out.weight, *tables]
    leaves += [params["out"], params["positions"], params["tokens"]]
    return _loaded(module, parameters, leaves, tables)
