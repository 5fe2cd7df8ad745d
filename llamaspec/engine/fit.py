"""Which layers go on which device: pure functions of sizes, so that they can be tried on made-up machines.

The rules of llama.cpp that this plans for: a model of n layers counts n + 1, the output being the last; k
layers on the GPU are the last k, dealt out in order to the devices by the shares in `tensor_split`; the KV
cache of a layer lives with it; the token embedding stays on the host; devices in use hold compute buffers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from llamaspec.errors import OutOfMemoryError

LayerRequest = Literal["auto", "all"] | int

GIB = 1 << 30
MIN_MARGIN = 512 << 20  # what the driver, its libraries and the desktop take on top of what can be foreseen


class SizedDevice(Protocol):
    """What is asked of a device; `native.devices.Device` has it."""

    @property
    def name(self) -> str: ...
    @property
    def free_bytes(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a model takes, in bytes. `layer_bytes` and `kv_bytes` have an entry for each of its n layers.

    `output_bytes` are the tensors after the last layer. Tied models have none of their own: they give the
    size of the token embedding there, because an offloaded output needs its copy, and set `tied_output`.
    """

    layer_bytes: tuple[int, ...]
    kv_bytes: tuple[int, ...]  # of the whole context (a recurrent layer: its states)
    input_bytes: int
    output_bytes: int
    tied_output: bool
    compute_bytes: int  # on each device that is used
    logits_bytes: int  # where the output layer is

    @property
    def count(self) -> int:
        """Layers as llama.cpp counts them: with the output."""
        return len(self.layer_bytes) + 1

    def offloaded(self, layers: int) -> tuple[int, ...]:
        """Bytes of each of the last `layers` layers, KV cache included, in the model's order."""
        blocks = [weights + kv for weights, kv in zip(self.layer_bytes, self.kv_bytes, strict=True)]
        return tuple([*blocks, self.output_bytes + self.logits_bytes][self.count - layers :])

    def per_device(self, layers: int) -> int:
        """Bytes that each used device needs besides its layers.

        A model that is partly on the host is evaluated on the device all the same when a batch is large: its
        weights pass through a buffer there, which is bounded by one layer.
        """
        passing = max(self.layer_bytes, default=0) if layers < self.count else 0
        return self.compute_bytes + passing

    def host_bytes(self, layers: int) -> int:
        """Bytes of host memory when `layers` of the model are offloaded."""
        kept = self.count - layers
        output = self.logits_bytes + (0 if self.tied_output else self.output_bytes)
        blocks = sum(self.layer_bytes[:kept]) + sum(self.kv_bytes[:kept])
        return self.input_bytes + self.compute_bytes + blocks + (output if layers == 0 else 0)

    def beside(self, layers: int) -> int:
        """Bytes of host memory of another context over the same weights."""
        kept = self.count - layers
        return self.compute_bytes + sum(self.kv_bytes[:kept]) + (self.logits_bytes if layers == 0 else 0)


@dataclass(frozen=True, slots=True)
class Plan:
    """Layers to offload, and how many of them go on each device (the numbers `tensor_split` takes).

    A model with no layers to offload must be loaded with no devices: llama.cpp would use them all the same.
    """

    main_layers: int
    draft_layers: int
    main_split: tuple[int, ...]
    draft_split: tuple[int, ...]
    reasons: tuple[str, ...]  # a sentence for each model, to show


def compute_bytes(
    *, ubatch: int, embedding: int, feed_forward: int, context: int, heads: int, flash_attention: bool
) -> int:
    """An upper estimate of the compute buffer of one device without the logits, in bytes.

    Activations of a micro-batch in f32 (the residual stream with what attention makes of it, the three
    feed-forward products), the attention mask in f32 and f16, and without flash attention the scores.
    """
    activations = 4 * ubatch * (8 * embedding + 3 * feed_forward)
    mask = 6 * ubatch * context
    scores = 0 if flash_attention else 4 * ubatch * context * heads
    return activations + mask + scores


def logits_bytes(*, vocabulary: int, rows: int) -> int:
    """The logits of `rows` tokens in f32."""
    return 4 * vocabulary * rows


def usable(free_bytes: int) -> int:
    """What of a device's free memory is planned with: all but 512 MiB, or a twentieth if that is more."""
    return max(0, free_bytes - max(MIN_MARGIN, free_bytes // 20))


def plan(
    devices: Sequence[SizedDevice],
    main: Footprint,
    draft: Footprint | None = None,
    *,
    main_layers: LayerRequest = "auto",
    draft_layers: LayerRequest = "auto",
) -> Plan:
    """Share out the devices' memory.

    A number, or `all`, is taken as said, whether it fits or not. What it leaves goes to the models on `auto`,
    the draft first: it is small and it runs most often.
    """
    models = {"draft": (draft, draft_layers), "main": (main, main_layers)}
    budgets = [usable(device.free_bytes) for device in devices]
    splits: dict[str, tuple[int, ...]] = {}
    reasons: dict[str, str] = {}
    for name, (model, request) in sorted(models.items(), key=lambda item: item[1][1] == "auto"):
        if model is None:
            splits[name] = (0,) * len(devices)
            continue
        split = _fit(model, budgets) if request == "auto" else _as_said(model, request, budgets)
        for index, used in enumerate(_used(model, split)):
            budgets[index] = max(0, budgets[index] - used)
        splits[name] = split
        reasons[name] = _reason(name, model, request, split, devices)
    return Plan(
        main_layers=sum(splits["main"]),
        draft_layers=sum(splits["draft"]),
        main_split=splits["main"],
        draft_split=splits["draft"],
        reasons=tuple(reasons[name] for name in ("draft", "main") if name in reasons),
    )


def check_host_memory(needed: Mapping[str, int], available: int) -> None:
    """Raise OutOfMemoryError, with figures, if what is `needed` (name → bytes) is more than is available."""
    total = sum(needed.values())
    if total <= available:
        return
    parts = ", ".join(f"{name} {size / GIB:.1f} GiB" for name, size in needed.items())
    raise OutOfMemoryError(
        f"This needs {total / GIB:.1f} GiB of memory ({parts}), and {available / GIB:.1f} GiB are available.",
        "Try a smaller context (-c), a quantised KV cache (-ctk q8_0 -ctv q8_0 -fa on), or a smaller "
        "quantisation of the model.",
    )


def _fit(model: Footprint, budgets: Sequence[int]) -> tuple[int, ...]:
    """The most layers that fit, on as few devices as hold them all, the roomiest first."""
    roomiest = sorted(range(len(budgets)), key=lambda index: -budgets[index])
    for some in range(1, len(budgets) + 1):
        chosen = set(roomiest[:some])
        narrowed = [budget if index in chosen else 0 for index, budget in enumerate(budgets)]
        if split := _deal(model, model.count, narrowed):
            return split
    for layers in range(model.count - 1, 0, -1):
        if split := _deal(model, layers, budgets):
            return split
    return (0,) * len(budgets)


def _deal(model: Footprint, layers: int, budgets: Sequence[int]) -> tuple[int, ...] | None:
    """The last `layers` layers dealt out, each device filled before the next; None if they don't fit."""
    sizes = model.offloaded(layers)
    split = []
    dealt = 0
    for budget in budgets:
        before = dealt
        room = budget - model.per_device(layers)
        while dealt < layers and sizes[dealt] <= room:
            room -= sizes[dealt]
            dealt += 1
        split.append(dealt - before)
    return tuple(split) if dealt == layers else None


def _as_said(model: Footprint, request: LayerRequest, budgets: Sequence[int]) -> tuple[int, ...]:
    """As many layers as asked for; where they don't fit, in proportion to the room there is."""
    layers = model.count if isinstance(request, str) else min(request, model.count)
    if not budgets:
        return ()
    if split := _deal(model, layers, budgets):
        return split
    weights = budgets if any(budgets) else [1] * len(budgets)
    ends = [round(layers * sum(weights[: index + 1]) / sum(weights)) for index in range(len(weights))]
    return tuple(end - start for start, end in zip([0, *ends], ends, strict=False))


def _used(model: Footprint, split: Sequence[int]) -> list[int]:
    """Bytes that the model takes on each device."""
    layers = sum(split)
    sizes = iter(model.offloaded(layers))
    return [
        sum(next(sizes) for _ in range(count)) + (model.per_device(layers) if count else 0) for count in split
    ]


def _reason(
    name: str, model: Footprint, request: LayerRequest, split: Sequence[int], devices: Sequence[SizedDevice]
) -> str:
    layers = sum(split)
    if not devices:
        return f"{name}: on the CPU, no GPU is used"
    places = ", ".join(
        f"{count} on {device.name} ({used / GIB:.1f} of {device.free_bytes / GIB:.1f} GiB free)"
        for device, count, used in zip(devices, split, _used(model, split), strict=True)
        if count
    )
    if request != "auto":
        why = "as asked for"
    elif layers == model.count:
        why = "all fit"
    else:
        why = "no more fit" if layers else "not one fits"
    return f"{name}: {layers} of {model.count} layers, {why}{': ' + places if places else ''}"
