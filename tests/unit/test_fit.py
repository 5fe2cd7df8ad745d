"""The fit on made-up machines."""

from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llamaspec.engine.fit import (
    GIB,
    Footprint,
    LayerRequest,
    Plan,
    check_host_memory,
    compute_bytes,
    logits_bytes,
    plan,
    usable,
)
from llamaspec.errors import OutOfMemoryError

MIB = 1 << 20


@dataclass(frozen=True)
class Card:
    free_bytes: int
    name: str = "CUDA0"


def model(layers: int, layer_mib: int, **sizes: int) -> Footprint:
    return replace(
        Footprint(
            layer_bytes=(layer_mib * MIB,) * layers,
            kv_bytes=(10 * MIB,) * layers,
            input_bytes=300 * MIB,
            output_bytes=300 * MIB,
            tied_output=False,
            compute_bytes=100 * MIB,
            logits_bytes=50 * MIB,
        ),
        **sizes,
    )


MAIN = model(32, 200)  # 32 x 210 + 350 + 100 MiB = 7170 MiB on one card
DRAFT = model(16, 40)  # 16 x 50 + 350 + 100 MiB = 1250 MiB on one card


def taken(footprint: Footprint, split: tuple[int, ...]) -> list[int]:
    """Bytes by device, not the planner's way: each layer is looked up by its place in the model."""
    layers = sum(split)
    first = len(footprint.layer_bytes) + 1 - layers
    bytes_by_device = []
    for count in split:
        used = 0
        for layer in range(first, first + count):
            if layer < len(footprint.layer_bytes):
                used += footprint.layer_bytes[layer] + footprint.kv_bytes[layer]
            else:
                used += footprint.output_bytes + footprint.logits_bytes
        bytes_by_device.append(used + footprint.per_device(layers) * (count > 0))
        first += count
    return bytes_by_device


def test_no_device() -> None:
    got = plan([], MAIN, DRAFT)
    assert got == Plan(
        0, 0, (), (), ("draft: on the CPU, no GPU is used", "main: on the CPU, no GPU is used")
    )
    assert plan([], MAIN, main_layers="all", draft_layers=5).main_layers == 0


def test_one_big_card_holds_it_all() -> None:
    got = plan([Card(24 * GIB)], MAIN, DRAFT)
    assert (got.main_layers, got.draft_layers) == (33, 17)
    assert got.reasons[0].startswith("draft: 17 of 17 layers, all fit: 17 on CUDA0 (1.2 of 24.0 GiB free)")
    assert got.reasons[1].startswith("main: 33 of 33 layers, all fit: 33 on CUDA0 (7.0 of")


def test_a_model_alone() -> None:
    got = plan([Card(24 * GIB)], MAIN)
    assert (got.main_layers, got.draft_layers, got.draft_split) == (33, 0, (0,))
    assert len(got.reasons) == 1


def test_a_small_card_takes_the_draft_and_part_of_main() -> None:
    got = plan([Card(4 * GIB)], MAIN, DRAFT)
    assert got.draft_layers == 17
    assert 0 < got.main_layers < 33
    room = usable(4 * GIB) - 1250 * MIB
    assert taken(MAIN, (got.main_layers,))[0] <= room < taken(MAIN, (got.main_layers + 1,))[0]
    assert "no more fit" in got.reasons[1]


def test_a_draft_that_does_not_fit_whole_goes_on_in_part() -> None:
    got = plan([Card(1400 * MIB)], MAIN, DRAFT)
    assert 0 < got.draft_layers < 17
    assert got.main_layers == 0
    assert got.reasons[1] == "main: 0 of 33 layers, not one fits"


@pytest.mark.parametrize("free", [0, 100 * MIB, 700 * MIB])
def test_a_full_card_is_left_alone(free: int) -> None:
    got = plan([Card(free)], MAIN, DRAFT)
    assert (got.main_layers, got.draft_layers) == (0, 0)


def test_two_unequal_cards_share_a_model_that_neither_holds() -> None:
    big, small = model(60, 300), Card(8 * GIB, "CUDA1")
    got = plan([Card(16 * GIB), small], big, DRAFT)
    assert got.main_layers == 61
    assert got.draft_split == (17, 0)
    assert all(got.main_split) and got.main_split[0] > got.main_split[1]
    assert "on CUDA0" in got.reasons[1] and "on CUDA1" in got.reasons[1]


def test_one_card_is_preferred_to_two_whatever_their_order() -> None:
    assert plan([Card(4 * GIB), Card(24 * GIB)], MAIN).main_split == (0, 33)
    assert plan([Card(24 * GIB), Card(4 * GIB)], MAIN).main_split == (33, 0)


def test_a_card_in_the_middle_may_stay_empty() -> None:
    huge = model(80, 500)
    assert plan([Card(32 * GIB), Card(0), Card(32 * GIB)], huge).main_split[1] == 0


@pytest.mark.parametrize(("request_", "layers"), [("all", 33), (99, 33), (33, 33), (20, 20), (0, 0)])
def test_a_number_is_taken_as_said(request_: LayerRequest, layers: int) -> None:
    for cards in (
        [Card(0)],
        [Card(1 * GIB)],
        [Card(100 * GIB)],
        [Card(0), Card(0)],
        [Card(3 * GIB), Card(1 * GIB)],
    ):
        got = plan(cards, MAIN, DRAFT, main_layers=request_)
        assert got.main_layers == sum(got.main_split) == layers
        assert "as asked for" in got.reasons[1]


def test_what_does_not_fit_is_shared_by_room() -> None:
    first, second = plan([Card(3 * GIB), Card(1 * GIB)], MAIN, main_layers="all").main_split
    assert first > second > 0


def test_auto_gets_what_a_forced_model_leaves() -> None:
    card = [Card(8 * GIB)]
    assert plan(card, MAIN, DRAFT, main_layers="all").draft_layers < 17
    assert plan(card, MAIN, DRAFT, main_layers=10).draft_layers == 17
    alone, beside = plan(card, MAIN), plan(card, MAIN, DRAFT, draft_layers="all")
    assert beside.draft_layers == 17
    assert beside.main_layers < alone.main_layers


def test_tied_embeddings_cost_a_copy_on_the_card_and_nothing_more_on_the_host() -> None:
    tied = replace(MAIN, tied_output=True)
    assert plan([Card(3 * GIB)], tied).main_layers == plan([Card(3 * GIB)], MAIN).main_layers
    assert tied.host_bytes(0) == MAIN.host_bytes(0) - MAIN.output_bytes
    assert tied.host_bytes(1) == MAIN.host_bytes(1)


def test_the_host_keeps_what_is_not_offloaded() -> None:
    everything = (32 * 210 + 300 + 300 + 100 + 50) * MIB
    assert MAIN.host_bytes(0) == everything
    assert MAIN.host_bytes(1) == everything - 350 * MIB
    assert MAIN.host_bytes(11) == everything - 350 * MIB - 10 * 210 * MIB
    assert MAIN.host_bytes(33) == 400 * MIB


def test_layers_need_not_be_equal() -> None:
    uneven = replace(MAIN, layer_bytes=(*[200 * MIB] * 30, 2 * GIB, 2 * GIB))
    got = plan([Card(4 * GIB)], uneven)
    assert got.main_layers == 1  # the output; a big layer doesn't fit beside the buffer for one that passes
    hybrid = replace(MAIN, kv_bytes=(*[0] * 31, 3 * GIB))
    assert plan([Card(4 * GIB)], hybrid).main_layers == 1


def test_estimates_of_buffers() -> None:
    sizes = {"ubatch": 512, "embedding": 1536, "feed_forward": 8960, "context": 4096, "heads": 12}
    flash = compute_bytes(**sizes, flash_attention=True)
    assert compute_bytes(**sizes, flash_attention=False) - flash == 4 * 512 * 4096 * 12
    assert 40 * MIB < flash < 120 * MIB
    assert logits_bytes(vocabulary=151_936, rows=512) == 151_936 * 512 * 4


def test_host_memory() -> None:
    check_host_memory({"main": 3 * GIB, "draft": 1 * GIB}, 4 * GIB)
    with pytest.raises(
        OutOfMemoryError, match=r"5\.0 GiB .*main 4\.0 GiB, draft 1\.0 GiB.* 4\.5 GiB"
    ) as caught:
        check_host_memory({"main": 4 * GIB, "draft": 1 * GIB}, 4 * GIB + GIB // 2)
    assert "-c" in caught.value.hint and "-ctk" in caught.value.hint


mib = st.integers(0, 800).map(lambda size: size * MIB)


@st.composite
def footprints(draw: st.DrawFn) -> Footprint:
    layers = draw(st.integers(1, 12))
    blocks = st.lists(mib, min_size=layers, max_size=layers).map(tuple)
    return Footprint(
        draw(blocks), draw(blocks), draw(mib), draw(mib), draw(st.booleans()), draw(mib), draw(mib)
    )


cards = st.lists(st.integers(0, 16 * 1024).map(lambda size: Card(size * MIB)), max_size=4)


@given(cards, footprints(), st.none() | footprints())
def test_auto_never_exceeds_the_room(machine: list[Card], main: Footprint, draft: Footprint | None) -> None:
    got = plan(machine, main, draft)
    by_main = taken(main, got.main_split)
    by_draft = taken(draft, got.draft_split) if draft else [0] * len(machine)
    for card, first, second in zip(machine, by_main, by_draft, strict=True):
        assert first + second <= usable(card.free_bytes) <= card.free_bytes
    assert (got.main_layers, got.draft_layers) == (sum(got.main_split), sum(got.draft_split))


@given(cards, footprints(), st.integers(0, 8 * 1024))
def test_more_memory_never_means_fewer_layers(machine: list[Card], main: Footprint, more: int) -> None:
    grown = [replace(card, free_bytes=card.free_bytes + more * MIB) for card in machine]
    assert plan(grown, main).main_layers >= plan(machine, main).main_layers


@given(cards, footprints(), st.just("all") | st.integers(0, 20))
def test_forced_layers_are_all_dealt_out(
    machine: list[Card], main: Footprint, request_: LayerRequest
) -> None:
    got = plan(machine, main, main_layers=request_)
    wanted = main.count if request_ == "all" else min(int(request_), main.count)
    assert got.main_layers == (wanted if machine else 0)
    assert all(count >= 0 for count in got.main_split)
