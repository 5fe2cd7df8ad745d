"""What plots draw, the pictures that are written of them, and the table of trials."""

import csv
import struct
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
import pytest
from reports import report

from llamaspec.bench.drawing import COLOURS, as_svg, drawable, drawing_style
from llamaspec.bench.plots import TITLES, plots, write_png
from llamaspec.bench.report import Outcome, RunRecord, TrialRecord
from llamaspec.bench.series import acceptance, accepted_per_round, speed_over_time
from llamaspec.bench.table_csv import COLUMNS, write_csv

PNG = b"\x89PNG\r\n\x1a\n"


def answer(*times: float) -> RunRecord:
    count = len(times)
    return RunRecord(
        predicted=count,
        timed_tokens=max(0, count - 1),
        seconds=times[-1] - times[0] if times else 0.0,
        prompt_tokens=5,
        prompt_seconds=0.1,
        times=times,
    )


def trials(*runs: RunRecord) -> tuple[TrialRecord, ...]:
    return tuple(TrialRecord(prompt=f"p{i}", kind="code", runs={"plain": run}) for i, run in enumerate(runs))


def alone(*runs: RunRecord) -> dict[str, object]:
    return {"outcomes": (Outcome(setting="plain"),), "trials": trials(*runs)}


def test_all_plots_are_drawn_in_the_order_of_reading() -> None:
    assert list(plots(report())) == list(TITLES)


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    before = dict(matplotlib.rcParams)
    for name, figure in plots(report()).items():
        as_svg(figure, name)
    assert dict(matplotlib.rcParams) == before


def test_a_persons_own_matplotlib_settings_change_nothing() -> None:
    drawn = as_svg(plots(report())["latency"], "latency")
    with matplotlib.rc_context({"font.size": 30.0, "axes.facecolor": "red", "text.usetex": True}):
        assert as_svg(plots(report())["latency"], "latency") == drawn


def test_a_drawing_holds_its_text_as_text_in_no_font_of_its_own() -> None:
    drawing = ElementTree.fromstring(as_svg(plots(report())["latency"], "latency"))
    texts = list(drawing.iter("text"))
    assert {"plain", "auto", "milliseconds from one token to the next"} <= {text.text for text in texts}
    assert all("font-family" not in text.attrib["style"] for text in texts)
    assert all("font-size" in text.attrib["style"] for text in texts)
    assert drawing.get("viewBox")


def test_pictures_are_written_whole(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "pictures"
    write_png(report(), folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.png" for name in TITLES)
    for path in folder.iterdir():
        data = path.read_bytes()
        assert data.startswith(PNG) and data.endswith(b"IEND\xaeB`\x82")
        width, height = struct.unpack(">II", data[16:24])
        assert width > 700 and height > 300
        assert b"tEXt" not in data  # no date, no program: the same report gives the same bytes


def test_long_and_foreign_names_are_drawn_as_far_as_they_can_be() -> None:
    assert drawable("auto:ngram+model") == "auto:ngram+model"
    assert drawable("模型 auto") == "□□ auto"
    assert drawable("x" * 300) == "x" * 19 + "…"
    assert drawable("W" * 300) == "W" * 11 + "…"
    assert drawable("W" * 300, widest=1.0) == "…"
    figures = plots(report(baseline="$\\frac{1}{2}$"))
    drawing = as_svg(figures["speedup-by-kind"], "speedup-by-kind")
    assert "$\\frac{1}{2}$" in drawing


def test_more_settings_than_can_be_told_apart_are_left_to_the_tables() -> None:
    one = report().outcome("auto")
    many = tuple(one.model_copy(update={"setting": f"fixed:{i}:0.5"}) for i in range(40))
    for name, figure in plots(report(outcomes=many)).items():
        assert figure.get_figheight() < 20, name


def test_hollow_marks_are_for_what_proves_nothing() -> None:
    def faces(**changes: object) -> set[str]:
        with drawing_style():
            axes = plots(report(**changes))["speedup-by-kind"].axes[0]
        return {
            str(line.get_markerfacecolor()) for line in axes.lines if line.get_marker() in ("o", "s", "D")
        }

    assert COLOURS["series-1"] in faces()
    assert faces(conclusive=False) == {COLOURS["raised"]}


def test_speed_over_time_counts_tokens_in_windows() -> None:
    # Ten tokens a second for twelve seconds: the windows are of one second.
    even = answer(*(i / 10 for i in range(121)))
    windows = speed_over_time(report(**alone(even, even)))["plain"]
    assert [window.end for window in windows] == list(range(1, 13))
    assert all(window.low == window.middle == window.high == pytest.approx(10.0) for window in windows)


def test_speed_over_time_ends_where_half_of_the_answers_have() -> None:
    long, short = answer(*(float(i) for i in range(25))), answer(*(float(i) for i in range(5)))
    windows = speed_over_time(report(**alone(short, short, long)))["plain"]
    assert windows[-1].end == pytest.approx(4.0)


def test_tokens_of_one_round_count_for_the_time_it_took() -> None:
    bursts = answer(0.0, *(float(second) for second in range(1, 13) for _ in range(4)))
    windows = speed_over_time(report(**alone(bursts)))["plain"]
    assert all(window.middle == pytest.approx(4.0) for window in windows)


@pytest.mark.parametrize("runs", [(), (answer(),), (answer(1.0),), (answer(1.0, 1.0, 1.0),)])
def test_answers_without_times_have_no_course(runs: tuple[RunRecord, ...]) -> None:
    assert speed_over_time(report(**alone(*runs))) == {}


def test_acceptance_leaves_out_what_was_never_drafted() -> None:
    places = acceptance(Outcome(setting="auto", drafted_at=(20, 4, 0), accepted_at=(15,)))
    assert [(place.position, place.share, place.sure) for place in places] == [
        (1, 0.75, True),
        (2, 0.0, False),
    ]
    assert accepted_per_round(Outcome(setting="plain", accepted_lengths={0: 9})) == {}
    drafted = Outcome(setting="auto", drafted_at=(3,), accepted_lengths={1: 3, 0: 1})
    assert accepted_per_round(drafted) == {0: 0.25, 1: 0.75}


def test_the_trials_come_back_from_csv(tmp_path: Path) -> None:
    whole = report()
    write_csv(whole, tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    expected = [(number, trial, name) for number, trial in enumerate(whole.trials, 1) for name in trial.runs]
    assert len(rows) == len(expected)
    for row, (number, trial, name) in zip(rows, expected, strict=True):
        run, base = trial.runs[name], trial.runs["plain"].speed
        assert (row["trial"], row["prompt"], row["kind"], row["setting"]) == (
            str(number),
            trial.prompt,
            trial.kind,
            name,
        )
        assert float(row["seconds"]) == run.seconds
        assert float(row["tokens_per_second"]) == run.speed
        assert run.speed and base and float(row["times_baseline"]) == run.speed / base
        assert (int(row["drafted"]), int(row["accepted"])) == (run.drafted, run.accepted)
    assert {row["program"] for row in rows} == {"llamaspec", "llama-server"}
    assert [path.name for path in tmp_path.iterdir()] == ["trials.csv"]


def test_what_is_not_known_is_empty_in_csv(tmp_path: Path) -> None:
    silent = answer().model_copy(update={"drafted": None, "accepted": None})
    odd = TrialRecord(prompt='a,"b"', kind="x;y", runs={"plain": silent})
    write_csv(report(trials=(odd,)), tmp_path / "trials.csv")
    with (tmp_path / "trials.csv").open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["prompt"], row["kind"]) == ('a,"b"', "x;y")
    assert [row[name] for name in ("tokens_per_second", "times_baseline", "drafted", "finish")] == [""] * 4
