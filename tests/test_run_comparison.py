"""Comparisons of runs from their folders: hand-made runs with known answers, real ones, forks, hostile and damaged."""

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import run as train
from typer.testing import CliRunner

from rllab.cli import app
from rllab.core.errors import Mistake
from rllab.core.recipe import load_recipe
from rllab.core.run import RunFolder
from rllab.core.trainer import Trainer
from rllab.evals.run_comparison import compare_runs
from rllab.evals.run_groups import by_seed
from rllab.evals.run_record import flat
from rllab.evals.run_values import HEADLINE, LAST, ROUNDS, Row

Make = Callable[..., Path]
SETTINGS = {
    "algo": "DQN",
    "env": "CartPole-v1",
    "total_steps": 4,
    "gamma": 0.99,
    "optim": {"name": "adamw", "lr": 0.01},
}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """make("a-s0", 0, [1.0, 2.0]): a run in tmp_path with a value of eval/return in each round."""

    def made(
        name: str,
        seed: int,
        values: Sequence[float],
        settings: Mapping[str, Any] | None = None,
        *,
        metric: str = "eval/return",
        state: str = "done",
        headline: float | None = None,
        forked: str | None = None,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        plain = SETTINGS | {"expect": {metric: 475}} | dict(settings or {}) | {"seed": seed}
        (folder / "recipe.yaml").write_text(yaml.safe_dump(plain))
        measured = {"name": metric, "value": headline, "interval": [0, 1]} if headline is not None else None
        (folder / "status.json").write_text(json.dumps({"state": state, "step": len(values), "headline": measured}))
        env = {"python": "3.11", "packages": {"rllab": "0.1"}, "processor": "one", "from": forked}
        (folder / "env.json").write_text(json.dumps(env))
        rows = [{"step": n, metric: v, "time/total": 2.0 * n, "env/steps": 10 * n} for n, v in enumerate(values, 1)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return folder

    return made


def compare(runs: Path, *words: str) -> Any:
    return CliRunner().invoke(app, ["compare", *words, "--runs", str(runs)])


def row(rows: Sequence[Row], metric: str, kind: str = LAST) -> Row:
    return next(r for r in rows if (r.metric, r.kind) == (metric, kind))


def test_known_answers(make: Make, tmp_path: Path) -> None:
    """Other seeds: Welch. By hand: means 2 and 11, variances 1 and 1, df 4, so 9 +- 2.7764 (2/3)**0.5."""
    for seed, value in enumerate((1.0, 2.0, 3.0)):
        make(f"a-s{seed}", seed, [0.0, value])
        make(f"b-s{seed + 5}", seed + 5, [0.0, value + 9], {"optim": {"name": "adamw", "lr": 0.1}})
    c = compare_runs(["a-s0..2", "b*"], tmp_path)
    assert [(e.letter, e.label, e.seeds) for e in c.entries] == [("A", "a-s0..2", [0, 1, 2]), ("B", "b*", [5, 6, 7])]
    measured = row(c.rows, "eval/return")
    assert measured.estimates["A"].mean == 2 and measured.estimates["B"].values == (10, 11, 12)
    assert measured.estimates["A"].interval == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-3)
    half = 2.77645 * (2 / 3) ** 0.5
    assert measured.differences["B"].interval == pytest.approx((9 - half, 9 + half), abs=1e-4)
    assert not measured.differences["B"].paired and measured.goal
    assert c.verdicts == [f"B reaches higher eval/return than A: +9 [+{9 - half:.4g}, +{9 + half:.4g}]"]
    assert c.settings == {"optim.lr": [[0.01], [0.1]]} and c.versions == {}
    assert c.cost["rounds"] == [2, 2] and c.cost["env/steps"] == [20, 20]
    assert c.cost["seconds"] == [4, 4] and c.cost["seconds per 100 rounds"] == [200, 200]
    assert "A has seeds 0 to 2, B has seeds 5 to 7" in c.pairings["B"].why and c.warnings == []


def test_the_same_seeds_are_compared_in_pairs(make: Make, tmp_path: Path) -> None:
    """Seeds differ much, and B is 1, 2 and 3 above A in each: in pairs that is 2 +- 4.3027/3**0.5."""
    for seed, value in enumerate((0.0, 100.0, 50.0)):
        make(f"a-s{seed}", seed, [value], headline=value)
        make(f"b-{seed}", 2 - seed, [(50.0, 100.0, 0.0)[seed] + 3 - seed], {"gamma": 0.5}, headline=1.0)
        make(f"c-s{seed}", seed, [value + seed + 1], {"env": "Acrobot-v1"})
    c = compare_runs(["a-s*", "b-*", "c-s*"], tmp_path)
    b, other = (row(c.rows, "eval/return").differences[x] for x in "BC")
    assert b.paired and b.difference == 2 and b.interval == pytest.approx((2 - 2.4842, 2 + 2.4842), abs=1e-3)
    assert not other.paired and other.difference == 2, "other environments draw other episodes"
    assert "compared seed by seed (seeds 0 to 2)" in c.pairings["B"].why
    assert "compared as groups: they differ in env" in c.pairings["C"].why
    assert c.settings == {"gamma": [[0.99], [0.5], [0.99]], "env": [["CartPole-v1"], ["CartPole-v1"], ["Acrobot-v1"]]}
    judged = row(c.rows, "eval/return", HEADLINE)
    assert set(judged.differences) == {"B"} and judged.estimates["B"].values == (1, 1, 1)
    assert "no clear difference of C and A in eval/return: +2" in c.verdicts[-1]


def test_a_verdict_takes_all_differences_into_account(make: Make, tmp_path: Path) -> None:
    """Holm: the smallest of four p-values counts four times."""
    for seed in range(3):
        make(f"a-s{seed}", seed, [float(seed)])
        for n, name in enumerate("bcde"):
            make(f"{name}-s{seed + 9}", seed + 9, [seed + (2.4 if n == 0 else 0.0)])
    c = compare_runs(["a*", "b*", "c*", "d*", "e*"], tmp_path)
    measured = row(c.rows, "eval/return")
    assert measured.differences["B"].p == pytest.approx(0.0422, abs=1e-3)
    assert measured.p["B"] == pytest.approx(4 * measured.differences["B"].p)
    assert all(v.startswith("no clear difference") for v in c.verdicts) and len(c.verdicts) == 4
    assert compare_runs(["a*", "b*"], tmp_path).verdicts[0].startswith("B reaches higher eval/return than A: +2.4 [")


def test_one_seed_is_told_how_to_have_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line that is printed is typed, and the runs that it trains join the comparison."""
    monkeypatch.chdir(tmp_path)
    for name, changes in {"mine": {}, "other": {"gamma": 0.5}}.items():
        train(load_recipe("cartpole", {"seed": 3, **changes}, smoke=True), tmp_path / "runs" / name)
    done = CliRunner().invoke(app, ["compare", "mine", "other"])
    assert done.exit_code == 0 and "too few seeds to tell whether B and A differ in eval/return" in done.stdout
    (line,) = re.findall(r"A has one seed; its spread between seeds is unknown -> (.*)", done.stdout)
    assert line == "rllab train runs/mine/recipe.yaml seed=4..7 --name mine"
    words = shlex.split(line.replace("4..7", "4..5"))[1:]
    assert CliRunner().invoke(app, [*words, "-q"], catch_exceptions=False).exit_code == 0
    done = CliRunner().invoke(app, ["compare", "mine", "seed=3..5", "other", "--json"])
    compared = json.loads(done.stdout)
    assert [e["seeds"] for e in compared["entries"]] == [[3, 4, 5], [3]]
    assert [r["run"] for r in compared["entries"][0]["runs"]] == ["runs/mine", "runs/mine-s4", "runs/mine-s5"]
    assert not any(w.startswith("A has one seed") for w in compared["warnings"])


@pytest.fixture(scope="module")
def cartpoles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Smoke runs of two seeds with two discounts, of which one is forked."""
    runs = tmp_path_factory.mktemp("runs")
    settings = {"eval_every": 1, "save_every": 1, "keep": 9, "total_steps": 6, "optim.lr": 0.05}
    for seed in (0, 1):
        for name, gamma in (("a", 0.99), ("b", 0.5)):
            changes = settings | {"seed": seed, "gamma": gamma}
            train(load_recipe("cartpole", changes, smoke=True), runs / f"{name}-s{seed}")
        for row in Trainer(fork=f"a-s{seed}@3", run=runs / f"fork-s{seed}", runs=runs, gamma=0.0):
            assert row["step"] > 3
    return runs


def test_a_seed_draws_the_same_under_other_settings(cartpoles: Path) -> None:
    """What pairs rest on: before the first update, runs of one seed have the same evaluation."""
    c = compare_runs(["a-s*", "b-s*"], cartpoles)
    a, b = (e.records for e in c.entries)
    first = [[r.course["eval/return"][1] for r in group] for group in (a, b)]
    assert first[0] == first[1] and first[0][0] != first[0][1]
    assert any(x.course["eval/return"] != y.course["eval/return"] for x, y in zip(a, b, strict=True)), "none learned"
    assert row(c.rows, "eval/return").differences["B"].paired and c.settings == {"gamma": [[0.99], [0.5]]}


def test_a_fork_is_compared_from_where_it_forked(cartpoles: Path) -> None:
    c = compare_runs(["a-s0", "fork-s0"], cartpoles)
    a, b = (e.records[0].course["eval/return"] for e in c.entries)
    assert {n: v for n, v in a.items() if n <= 3} == {n: v for n, v in b.items() if n <= 3}
    (since,) = [s for s in c.since_fork if s.metric == "eval/return"]
    differences = [b[n] - a[n] for n in (4, 5, 6)]
    assert (since.since, since.rounds, since.pairs) == (3, 3, 1) and any(differences)
    assert since.difference == pytest.approx(sum(differences) / 3)
    assert (since.higher, since.lower) == (sum(d > 0 for d in differences), sum(d < 0 for d in differences))
    assert "B is a fork of A from round 3: both have the same rounds until there" in c.pairings["B"].why
    assert any("of 3 evaluations behind round 3" in v for v in c.verdicts)
    assert c.cost["rounds since round 3"] == [3, 3]
    steps = c.entries[0].records[0].course["env/steps"]
    assert c.cost["env/steps since round 3"] == [steps[6] - steps[3]] * 2
    backwards = compare_runs(["fork-s0", "a-s0"], cartpoles)
    assert "A is a fork of B from round 3" in backwards.pairings["B"].why
    assert backwards.since_fork[0].difference == pytest.approx(-since.difference)
    (line,) = [w for w in c.warnings if w.startswith("B has one seed")]
    assert "a-s0/recipe.yaml" in line and "then rllab train --from a-s1@3" in line


def test_forks_of_several_seeds_are_paired_with_their_parents(cartpoles: Path) -> None:
    c = compare_runs(["a-s*", "fork-s*"], cartpoles)
    (since,) = [s for s in c.since_fork if s.metric == "eval/return"]
    assert (since.pairs, since.rounds) == (2, 6) and since.interval is not None
    siblings = compare_runs(["fork-s0", "a-s0@5"], cartpoles)
    assert siblings.pairings["B"].since == 3 and siblings.entries[1].records[0].step == 5
    assert compare_runs(["a-s0", "fork-s1"], cartpoles).pairings["B"].pairs == ()


def test_each_pair_counts_from_its_own_fork(make: Make, tmp_path: Path) -> None:
    """The rounds that a pair shares are no evaluations of the fork, also where another pair forked earlier."""
    for seed, step in ((0, 1), (1, 3)):
        make(f"a-s{seed}", seed, [1.0, 1.0, 1.0, 1.0])
        values = [1.0] * step + [2.0] * (4 - step)
        make(f"f-s{seed}", seed, values, {"gamma": 0.5}, forked=f"a-s{seed}@{step}")
    (line,) = compare_runs(["a-s*", "f-s*"], tmp_path).since_fork
    assert (line.since, line.pairs, line.rounds, line.higher, line.lower) == (1, 2, 4, 4, 0)
    assert line.difference == 1.0


def test_a_figure_shows_groups_with_their_bands(cartpoles: Path, tmp_path: Path) -> None:
    figure = tmp_path / "f.svg"
    done = compare(cartpoles, "a-s*", "b-s*", "--figure", str(figure))
    assert done.exit_code == 0, done.output
    text = figure.read_text()
    assert (
        "A: a-s*, interquartile mean of 2 seeds" in text and "eval/return over step" in text and "FillBetween" in text
    )


def test_a_figure_over_seconds(cartpoles: Path, tmp_path: Path) -> None:
    figure = tmp_path / "f.svg"
    done = compare(cartpoles, "a-s*", "b-s*", "--figure", str(figure), "--over", "time/total")
    text = figure.read_text()
    assert done.exit_code == 0 and "eval/return over time/total" in text and "training time (seconds)" in text
    assert "A: a-s*, interquartile mean of 2 seeds, 95 % interval where they differ, interpolated" in text
    for words, message in (
        (["--figure", str(figure), "--over", "data/tokens"], r"--over data/tokens: a-s\*, b-s\* does not count that"),
        (["--over", "time/total"], "give --figure FILE as well"),
    ):
        error = compare(cartpoles, "a-s*", "b-s*", *words).exception
        assert isinstance(error, Mistake) and re.search(message, str(error))


def test_runs_that_end_at_a_value_are_compared_by_their_rounds(make: Make, tmp_path: Path) -> None:
    until = {"until": {"eval/return": 9}, "total_steps": 20}
    for seed in range(3):
        make(f"a-s{seed}", seed, [1.0] * (2 + seed) + [9.0], until, headline=9.0)
        make(f"b-s{seed}", seed, [1.0] * (12 + 2 * seed) + [9.0], until | {"gamma": 0.5}, headline=9.0)
    c = compare_runs(["a*", "b*"], tmp_path)
    rounds = row(c.rows, "step", ROUNDS)
    assert rounds.estimates["A"].values == (3, 4, 5) and rounds.differences["B"].difference == 11  # 10, 11, 12
    half = 4.3027 / 3**0.5
    assert c.verdicts == [
        "no difference of B and A in eval/return: every seed has the same value in both",
        f"B takes more rounds than A: +11 [+{11 - half:.4g}, +{11 + half:.4g}]",
    ]
    make("c-s0", 0, [1.0] * 20, until, headline=1.0)
    slow = compare_runs(["a-s0", "c-s0"], tmp_path)
    assert "B: c-s0 did not reach `until`; the rounds are those of total_steps" in slow.warnings
    cut = compare_runs(["a-s0@2", "b-s0@2"], tmp_path)
    assert [r.kind for r in cut.rows] == [LAST], "they have not ended there"


def test_names_of_single_runs_are_grouped_by_seed(cartpoles: Path) -> None:
    """A shell has turned a-s* into these."""
    c = compare_runs([str(cartpoles / f"{n}-s{s}") for n in "ab" for s in (0, 1)], cartpoles)
    assert [(e.label, e.seeds) for e in c.entries] == [("a*", [0, 1]), ("b*", [0, 1])]
    assert "a-s0, a-s1 differ in their seed alone and are one group, a*" in c.warnings
    assert [e.label for e in compare_runs(["a-s0", "a-s1"], cartpoles).entries] == ["a-s0", "a-s1"], "two must remain"


def test_runs_with_other_sources_are_not_grouped_by_seed(make: Make, tmp_path: Path) -> None:
    for name, seed, code in (("a-s0", 0, "x = 1"), ("a-s1", 1, "x = 2"), ("b", 0, "x = 1"), ("c", 1, "x = 1")):
        (make(name, seed, [1.0], {"gamma": 0.5} if name in "bc" else {}) / "sources").mkdir()
        (tmp_path / name / "sources/mine.py").write_text(code)
    assert [e.label for e in compare_runs(["a-s0", "a-s1", "b", "c"], tmp_path).entries] == ["a-s0", "a-s1", "b*"]


def test_a_run_that_repeats_a_seed_is_no_further_seed(make: Make, tmp_path: Path) -> None:
    for name, seed in (("a-s0", 0), ("a-s1", 1), ("again", 0), ("sent", 2)):
        make(name, seed, [1.0], {"track": ["wandb"]} if name == "sent" else {})
    make("fork", 3, [1.0, 2.0], forked="a-s3@1")
    runs = [RunFolder(tmp_path / name) for name in ("a-s0", "a-s1", "again", "sent", "fork")]
    assert [sorted(r.path.name for r in g.runs) for g in by_seed(runs)] == [
        ["a-s0", "a-s1", "sent"],
        ["again"],
        ["fork"],
    ]


def test_runs_that_repeat_each_other_are_named(make: Make, tmp_path: Path) -> None:
    for name, seed in (("a-1", 0), ("a-2", 0), ("a-3", 1), ("b", 0)):
        make(name, seed, [1.0])
    c = compare_runs(["a*", "b"], tmp_path)
    assert any(w.startswith("A: a-1, a-2 have the same seed and settings; they repeat each other") for w in c.warnings)
    assert c.pairings["B"].pairs == () and "several runs have the same seed" in c.pairings["B"].why


def test_runs_that_are_not_done_are_named(make: Make, tmp_path: Path) -> None:
    for seed in range(3):
        make(f"a-s{seed}", seed, [1.0, 2.0, 3.0 + seed, 4.0], headline=5.0 + seed)
        make(f"b-s{seed}", seed, [1.0, 2.0 + seed], state="running" if seed else "stopped")
    (tmp_path / "a-s1/status.json").write_text("{")
    (tmp_path / "a-s2/recipe.yaml").write_text("seed: [")
    c = compare_runs(["a-s*", "b-s*"], tmp_path)
    assert [r.state for e in c.entries for r in e.records] == ["done", "damaged", "stopped", "killed", "killed"]
    text = "\n".join(c.warnings)
    assert "A: a-s2 is left out: " in text and "recipe.yaml" in text
    assert "A: a-s1: " in text and "status.json" in text and "A: 1 of 2 runs have headline" not in text
    assert "B: b-s1 is killed at round 2 of 4: its last values are from there" in text
    make("c-s0", 0, [2.0])
    assert "A: 1 of 2 runs have headline eval/return" in "\n".join(
        [*compare_runs(["a-s*", "c-s0"], tmp_path).warnings, *_with_headlines(tmp_path)]
    )
    for env in ('{"from": 5}', '{"from": "gone@1"}', '{"from": "c-s0@1"}', "[]"):
        (tmp_path / "c-s0/env.json").write_text(env)
        assert compare_runs(["b-s*", "c-s0"], tmp_path).since_fork == []
    for name in ("a-s0", "a-s1"):
        (tmp_path / name / "recipe.yaml").write_text("- 1")
    with pytest.raises(Mistake, match=r"no run of a-s\* can be read"):
        compare_runs(["a-s*", "b-s*"], tmp_path)


def _with_headlines(runs: Path) -> list[str]:
    status = json.dumps({"state": "done", "headline": {"name": "eval/return", "value": 2.0, "interval": [1, 3]}})
    (runs / "c-s0/status.json").write_text(status)
    return compare_runs(["a-s*", "c-s0"], runs).warnings


def test_runs_without_a_common_metric(make: Make, tmp_path: Path) -> None:
    make("a", 0, [1.0])
    make("b", 0, [0.5], {"algo": "SFT"}, metric="eval/nll")
    c = compare_runs(["a", "b"], tmp_path)
    assert c.rows == [] and c.only == {"eval/return": ["A"], "eval/nll": ["B"]}
    assert c.verdicts == ["B and A have measured nothing in common that could be compared"]
    text = compare(tmp_path, "a", "b")
    assert text.exit_code == 0 and "A alone measured eval/return" in text.stdout
    assert row(compare_runs(["a", "b"], tmp_path, ["env/steps"]).rows, "env/steps").estimates["B"].values == (10.0,)
    drawn = compare(tmp_path, "a", "b", "--figure", str(tmp_path / "x.svg"))
    assert drawn.exit_code and "no metric in common" in str(drawn.exception)


def test_settings_versions_and_sources_that_differ(make: Make, tmp_path: Path) -> None:
    rewards = [{"name": "accuracy", "weight": 1.0}, {"name": "sources/mine.py:fn", "weight": 0.5}]
    for name, code in (("a", "x = 1"), ("b", "x = 2")):
        folder = make(name, 0, [1.0], {"reward": rewards if name == "b" else rewards[:1], "beta": 0.1} if code else {})
        (folder / "sources").mkdir()
        (folder / "sources/mine.py").write_text(code)
    env = json.loads((tmp_path / "b/env.json").read_text()) | {"packages": {"rllab": "0.2", "torch": "2"}}
    (tmp_path / "b/env.json").write_text(json.dumps(env | {"processor": "two"}))
    c = compare_runs(["a", "b"], tmp_path)
    assert c.settings == {"reward.1.name": [None, ["sources/mine.py:fn"]], "reward.1.weight": [None, [0.5]]}
    assert set(c.versions) == {"packages.rllab", "packages.torch", "sources/mine.py"}
    assert c.versions["packages.rllab"] == [["0.1"], ["0.2"]] and c.versions["packages.torch"] == [None, ["2"]]
    assert "seconds are of different machines: one, two" in c.warnings
    assert "no such setting" in compare(tmp_path, "a", "b").stdout
    assert flat({"a": {}, "b": []}) == {"a": {}, "b": []}


def test_hostile_names_and_values_are_shown_inert(make: Make, tmp_path: Path) -> None:
    hostile = "eval/\x1b[31mred\u202e$x^{$"
    make("a\x1b[2J$", 0, [1.0, 2.0], {"gamma": "\x1b]0;title\x07\n" + "x" * 500}, metric=hostile)
    make("b", 0, [1.0, 3.0], metric=hostile)
    with open(tmp_path / "b/metrics.jsonl", "a") as file:
        file.write('garbage\n{"step": 3, "eval/return": "text", "eval/x": NaN, "eval/y": true, "eval/z": 1e999}\n{"st')
    figure = tmp_path / "f.svg"
    with pytest.warns(UserWarning, match="line 3 is not a row"):
        done = compare(tmp_path, "a\x1b[2J$", "b", "--figure", str(figure))
    assert done.exit_code == 0, done.output
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", done.stdout) and "\\u001b[31mred" in done.stdout
    assert max(map(len, done.stdout.splitlines())) < 400 and figure.stat().st_size > 5_000
    with pytest.warns(UserWarning, match="line 3"):
        plain = json.loads(compare(tmp_path, "a\x1b[2J$", "b", "--json").stdout)
    assert plain["only"] == {} and [m["metric"] for m in plain["metrics"]] == [hostile]
    assert plain["metrics"][0]["estimates"]["B"]["mean"] == 3.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a-s0"], "one run alone: name two or more"),
        (["a-s*"], r"a-s\* is one group of 2 runs: name two or more"),
        (["a-s0", "b-s0..3"], "no run 'b-s2'"),
        (["a", "seed=0..9", "b-s0"], "no run 'a-s2'"),
        (["a", "seed=5..1", "b-s0"], "the last number comes before the first"),
        (["a", "seed=x", "b-s0"], "expected a whole number, or a range"),
        (["a-s0", "z*"], r"no run in .* matches 'z\*'"),
        (["a-s*", "*-s0"], r"is in a-s\* and in \*-s0: a run counts in one group"),
        (["a-s0", "a-s0"], "a run is named twice"),
        (["a-s0", "b-s00"], "no run 'b-s00'"),
        (["a-s0", "b-s0..99999999999999"], "no run 'b-s2'"),
    ],
)  # fmt: skip
def test_words_that_name_no_groups(words: list[str], message: str, cartpoles: Path) -> None:
    with pytest.raises(Mistake, match=message):
        compare_runs(words, cartpoles)
