"""The network as attacks see it: evaluation mode, constant weights, BatchNorm folded into the convolution before it.

In evaluation mode BatchNorm is y = s z + t by channel with s = gamma / sqrt(var + tiny) and t = beta - s mean. After a
convolution z = W x + b that nothing else reads, s z + t = (s W) x + (s b + t): a convolution again, exactly so in real
numbers. A BatchNorm that reads something else, such as a residual sum, stays.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from robust_arch.architectures import Classifier
from robust_arch.attacks.base import undisturbed
from robust_arch.engine.compilation import RegionCompiler, blocks_of

# layers that do nothing in evaluation mode
_SKIPPED = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout)


class NotFreezableError(Exception):
    """The network contains something for which this module has no constant form."""


class FrozenNetwork(nn.Module):
    """The logits of a network in evaluation mode, for gradients with respect to images alone.

    net: float32, on its device; it must not be moved afterwards. dtype: float32 or bfloat16, of all that is computed
    between normalisation and the linear layers; those and the logits are float32. compiler: compiles the code of the
    blocks; blocks of the same structure share one result. The weights are those of the last `refresh`.

    Raises:
        NotFreezableError: if the forward pass depends on data, or a layer is of an unknown kind.
    """

    def __init__(
        self, net: nn.Module, dtype: torch.dtype = torch.float32, compiler: RegionCompiler | None = None
    ) -> None:
        super().__init__()
        if any(tensor.dtype != torch.float32 for tensor in net.parameters()):
            raise NotFreezableError("its weights are not float32")
        self.dtype, self.compiler = dtype, compiler
        network, self.normalize = net, cast(nn.Module, nn.Identity())
        self._laid_out: Callable[[Tensor], Tensor] = lambda x: x
        if isinstance(net, Classifier):
            network, self._laid_out = net.network, net.laid_out
            if bool((net.normalize.mean != 0).any()) or bool((net.normalize.std != 1).any()):
                self.normalize = net.normalize
        shared: dict[Any, Callable[..., Tensor]] = {}
        with undisturbed(net):  # code that reads `self.training` is traced in evaluation mode
            regions = {block: _Region(block, dtype, {}, shared, compiler) for block in blocks_of(network)}
            self.trunk = _Region(network, dtype, regions, shared, None)
        parts = [self.trunk, *regions.values()]
        self._convolutions = [convolution for part in parts for convolution in part.convolutions]
        self._layers = [layer for part in parts for layer in part.layers]
        self._addresses = self._find()
        self.refresh()

    def _find(self) -> list[int]:
        """The addresses of all layers' tensors in memory."""
        return [t.data_ptr() for layer in self._layers for t in (*layer.parameters(), *layer.buffers())]

    def is_stale(self) -> bool:
        """Whether the network's tensors were replaced since it was frozen, as by a move to another device."""
        return self._find() != self._addresses

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the network's current weights and statistics.

        Raises:
            RuntimeError: if its tensors were replaced.
        """
        if self.is_stale():
            raise RuntimeError("the network's tensors were replaced after it was frozen; freeze it again")
        for convolution in self._convolutions:
            convolution.refresh()

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) in [0, 1]. Returns logits (B, K) float32."""
        if self.compiler is not None:
            self.compiler.begin_step()
        with torch.autocast(x.device.type, enabled=False):
            logits: Tensor = self.trunk(self._laid_out(self.normalize(x).to(self.dtype)))
            return logits


@dataclass
class _Convolution:
    """Weight and bias of a convolution, with the BatchNorm after it folded in, in the type of the graph."""

    layer: nn.Conv2d
    folded: nn.BatchNorm2d | None
    dtype: torch.dtype
    weight: Tensor = field(init=False)
    bias: Tensor | None = field(init=False)

    def __post_init__(self) -> None:
        self.weight = torch.empty_like(self.layer.weight, dtype=self.dtype, requires_grad=False)
        has_bias = self.folded is not None or self.layer.bias is not None
        self.bias = self.weight.new_empty(self.layer.out_channels) if has_bias else None

    def refresh(self) -> None:
        """Fold in float32, then round to the type of the graph."""
        weight, bias = self.layer.weight, self.layer.bias
        if (norm := self.folded) is not None:
            mean, scale = cast(Tensor, norm.running_mean), torch.rsqrt(cast(Tensor, norm.running_var) + norm.eps)
            if norm.affine:
                scale = scale * norm.weight
            shift = -mean * scale if norm.bias is None else torch.addcmul(norm.bias, mean, scale, value=-1)
            weight = weight * scale[:, None, None, None]
            bias = shift if bias is None else torch.addcmul(shift, bias, scale)
        self.weight.copy_(weight)
        if self.bias is not None and bias is not None:
            self.bias.copy_(bias)


class _Tracer(fx.Tracer):
    """Stops at the modules that are frozen by themselves."""

    def __init__(self, regions: dict[nn.Module, "_Region"]) -> None:
        super().__init__()
        self.regions = regions

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return m in self.regions or super().is_leaf_module(m, module_qualified_name)


class _Region(nn.Module):
    """One traced module as a function of its input and of constants."""

    def __init__(
        self,
        module: nn.Module,
        dtype: torch.dtype,
        regions: dict[nn.Module, "_Region"],
        shared: dict[Any, Callable[..., Tensor]],
        compiler: RegionCompiler | None,
    ) -> None:
        super().__init__()
        self.dtype = dtype
        self.convolutions: list[_Convolution] = []
        self.tensors: list[Tensor] = []
        self.layers: list[nn.Module] = []
        kind = type(module).__name__
        try:
            self.graph = _Tracer(regions).trace(module)
        except Exception as error:  # a forward pass that looks at its values may raise anything
            raise NotFreezableError(f"{kind} cannot be traced: {error}") from error
        inputs = [node for node in self.graph.nodes if node.op == "placeholder"]
        if len(inputs) != 1:
            raise NotFreezableError(f"{kind} takes more than images")
        self._last_input = inputs[0]
        modules = dict(module.named_modules())
        called = {}
        for node in list(self.graph.nodes):
            if node.op == "get_attr":
                raise NotFreezableError(f"{kind} reads its tensor {node.target} directly")
            if node.op == "call_module" and (kept := self._freeze_call(node, modules, regions)) is not None:
                called[str(node.target)] = kept
        self._compute_in_place()
        self.graph.lint()
        # a part of this module even if its code is compiled: the modules in it follow the mode
        self.built = fx.GraphModule(called, self.graph)
        # blocks of the same structure have the same code and, with different constants, the same function
        key = (self.built.code, *((name, repr(kept), repr(vars(kept))) for name, kept in called.items()))
        if key not in shared:
            shared[key] = compiler(self.built.forward) if compiler else self.built
        self.run = shared[key]

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, H, W) of the region's type."""
        return self.run(x, *self.tensors)

    def _freeze_call(
        self, node: fx.Node, modules: dict[str, nn.Module], regions: dict[nn.Module, "_Region"]
    ) -> nn.Module | None:
        """Replace the call of a layer by a function of constants; a module whose call stays is returned."""
        layer = modules[str(node.target)]
        if layer in regions:
            return regions[layer]
        if layer._forward_pre_hooks or layer._forward_hooks:
            raise NotFreezableError(f"a {type(layer).__name__} has hooks")
        self.layers.append(layer)
        kind = type(layer)  # exactly: a subclass, such as a parametrised layer, may compute something else
        if kind in _SKIPPED:
            self._replace(node, cast(fx.Node, node.args[0]))
        elif kind is nn.Conv2d:
            self._freeze_convolution(node, cast(nn.Conv2d, layer), modules)
        elif kind is nn.BatchNorm2d:
            self._freeze_norm(node, cast(nn.BatchNorm2d, layer))
        elif kind is nn.Linear:
            self._freeze_linear(node, cast(nn.Linear, layer))
        elif next(layer.parameters(), None) is None and next(layer.buffers(), None) is None:
            return layer
        else:
            raise NotFreezableError(f"no constant form of {kind.__name__} is known")
        return None

    def _freeze_convolution(self, node: fx.Node, layer: nn.Conv2d, modules: dict[str, nn.Module]) -> None:
        if layer.padding_mode != "zeros":
            raise NotFreezableError(f"a convolution pads with {layer.padding_mode!r}")
        follower = next(iter(node.users)) if len(node.users) == 1 else None
        norm = modules.get(str(follower.target)) if follower is not None and follower.op == "call_module" else None
        foldable = type(norm) is nn.BatchNorm2d and norm.running_var is not None
        folded = cast(nn.BatchNorm2d, norm) if foldable else None
        convolution = _Convolution(layer, folded, self.dtype)
        self.convolutions.append(convolution)
        inputs = (node.args[0], *self._constants(node, weight=convolution.weight, bias=convolution.bias))
        settings = (layer.stride, layer.padding, layer.dilation, layer.groups)
        with self.graph.inserting_before(node):
            frozen = self.graph.call_function(F.conv2d, (*inputs, *settings))
        self._replace(node, frozen)
        if folded is not None and follower is not None:
            self.layers.append(folded)
            self._replace(follower, frozen)

    def _freeze_norm(self, node: fx.Node, layer: nn.BatchNorm2d) -> None:
        if node not in self.graph.nodes:  # folded already
            return
        if layer.running_mean is None or layer.running_var is None:
            raise NotFreezableError("a BatchNorm keeps no running statistics")
        # float32 whatever the images' type: kernels take the two together
        constants = self._constants(
            node, mean=layer.running_mean, var=layer.running_var, weight=layer.weight, bias=layer.bias
        )
        with self.graph.inserting_before(node):
            arguments = (node.args[0], *constants, False, 0.0, layer.eps)
            self._replace(node, self.graph.call_function(F.batch_norm, arguments))

    def _freeze_linear(self, node: fx.Node, layer: nn.Linear) -> None:
        constants = self._constants(node, weight=layer.weight, bias=layer.bias)
        with self.graph.inserting_before(node):
            exact = self.graph.call_method("float", (node.args[0],))
            self._replace(node, self.graph.call_function(F.linear, (exact, *constants)))

    def _constants(self, node: fx.Node, **tensors: Tensor | None) -> list[fx.Node | None]:
        """Further inputs of the graph that are always these tensors."""
        inputs: list[fx.Node | None] = []
        for name, tensor in tensors.items():
            if tensor is None:
                inputs.append(None)
                continue
            with self.graph.inserting_after(self._last_input):
                self._last_input = self.graph.placeholder(f"{node.name}_{name}")
            inputs.append(self._last_input)
            self.tensors.append(tensor.detach())
        return inputs

    def _replace(self, node: fx.Node, other: fx.Node) -> None:
        node.replace_all_uses_with(other)
        self.graph.erase_node(node)

    def _compute_in_place(self) -> None:
        """Let ReLU overwrite the output of a convolution or of BatchNorm that nothing else reads."""
        for node in self.graph.nodes:
            if node.op == "call_function" and node.target is F.relu:
                source = cast(fx.Node, node.args[0])
                if source.target in (F.conv2d, F.batch_norm) and len(source.users) == 1:
                    node.kwargs = {"inplace": True}
