"""DeepSeekMath-V2 in small: its rewards, its texts, a verifier as a reward, calibration on its published proofs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rllab_envs import tasks
from typer.testing import CliRunner

from rllab import rewards
from rllab.cli import app
from rllab.core.errors import FieldMistake
from rllab.rewards.self_verification import (
    ALPHA,
    BETA,
    Evaluation,
    meta_reward,
    prover_reward,
    read_evaluation,
    read_proof,
    score_reward,
    verifier_reward,
)
from rllab.stats import wilson
from rllab.testing import check_task
from rllab.text.chat import documents
from rllab.text.tokenizers import tokenizer_for

RIGHT, GAP, WRONG = Evaluation(1.0, None, 1.0), Evaluation(0.5, 2, 0.5), Evaluation(0.0, 2, 0.0)


def test_the_constants_and_equations_of_the_paper() -> None:
    assert (ALPHA, BETA) == (0.76, 0.24)
    assert [score_reward(s, t) for s, t in ((1, 1), (0, 1), (0.5, 1), (0.5, 0))] == [1.0, 0.0, 0.5, 0.5]
    assert verifier_reward(RIGHT, 1.0, None) == verifier_reward(GAP, 0.5, 2) == verifier_reward(WRONG, 0.0, 2) == 1.0
    assert verifier_reward(RIGHT, 0.0, 2) == 0.0 and verifier_reward(None, 1.0, None) == 0.0
    assert verifier_reward(GAP, 0.0, 2) == 0.5


def test_meta_verification_rewards_real_flaws() -> None:
    hallucinated = Evaluation(0.0, 3, 0.0)  # the right score, of a flaw that is none: what equation 2 cannot see
    assert verifier_reward(hallucinated, 0.0, 2, meta=False) == 1.0 and verifier_reward(hallucinated, 0.0, 2) == 0.0
    assert meta_reward(hallucinated, None) == 0.0
    assert meta_reward(Evaluation(0.5, 2, 0.0), 2) == 0.5  # the score is not that of what it found
    assert meta_reward(RIGHT, 2) == 1.0 and meta_reward(Evaluation(0.0, None, 1.0), 2) == 0.5


def test_a_prover_is_rewarded_for_its_proof_and_for_its_self_evaluation() -> None:
    assert prover_reward(RIGHT, RIGHT) == 1.0
    assert prover_reward(WRONG, WRONG) == pytest.approx(BETA)  # a wrong proof, faithfully told
    assert prover_reward(RIGHT, WRONG) == 0.0  # and claimed to be right
    assert prover_reward(GAP, GAP) == pytest.approx(ALPHA / 2 + BETA)
    assert prover_reward(RIGHT, GAP) == pytest.approx(ALPHA / 2 + BETA / 2)
    assert prover_reward(WRONG, RIGHT) == pytest.approx(ALPHA)  # right, and thought to be wrong
    assert prover_reward(None, RIGHT) == prover_reward(RIGHT, None) == 0.0


SOUND = "Evaluation: 12 + 5 = 17 yes. No line is wrong. #### 1"


def test_evaluations_in_another_form_are_not_read() -> None:
    assert read_evaluation(SOUND) == RIGHT
    assert read_evaluation("Evaluation : 1 + 1 = 2 gap ; 2 + 2 = 4 yes. Line 2 has a gap. #### 1 / 2") == GAP
    assert read_evaluation("Evaluation: 1 + 1 = 2 no. Line 2 is wrong. #### 0") == WRONG
    assert read_evaluation("Evaluation: 1 + 1 = 2 no. Line 2 is wrong. #### 0. 5") == Evaluation(0.5, 2, 0.0)
    for text in ("", "#### 1", SOUND[12:], SOUND + "2", SOUND.replace("#### 1", "####"), SOUND + " " + SOUND):
        assert read_evaluation(text) is None, text
    assert read_proof(f"Proof: 1: 12 + 5 = 17. {SOUND}") == ("Proof: 1: 12 + 5 = 17.", RIGHT)
    assert read_proof(f"Proof: 1: 12 + 5 = 17. {SOUND} {SOUND}") == ("Proof: 1: 12 + 5 = 17.", None)
    assert read_proof(SOUND) == ("", None)


def test_rewards_of_evaluations() -> None:
    completions = [SOUND, "Evaluation: 1 + 1 = 2 no. Line 2 is wrong. #### 0", "Line 2 is wrong."]
    rows: dict[str, Any] = {"completions": completions, "target": ["1", "0", "0"], "line": [None, 1, 2]}
    assert rewards.verifying(**rows) == [1.0, 0.0, 0.0] and rewards.verifying(**rows, meta=False) == [1.0, 1.0, 0.0]
    assert rewards.flaw_named(completions, [None, 1, 2]) == [None, 0.0, 0.0]
    assert rewards.flaw_named(completions[1:], [2, 2]) == [1.0, 0.0]


def calibration(*words: object) -> Any:
    return CliRunner().invoke(app, ["calibration", *map(str, words)])


def test_the_papers_table_1_comes_out_of_its_published_proofs(data: Path, tmp_path: Path) -> None:
    folder, figure = data / "deepseekmath_v2_outputs", tmp_path / "calibration.svg"
    names = ["IMO2025", "CMO2024", "Putnam2024", "IMO-ProofBench-Basic"]
    done = calibration(*(folder / f"{name}.jsonl" for name in names), "--json", "--figure", figure)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert [(r["file"], round(100 * r["share"], 1)) for r in result["files"]] == list(
        zip(names, [83.3, 73.8, 98.3, 99.0], strict=True)  # Table 1, and figure 3
    )
    assert sum(r["proofs"] for r in result["bins"]) == result["all"][0]["proofs"] == 54
    assert 0 < result["all"][0]["pearson"] < 1 and figure.read_text().lstrip().startswith("<?xml")


def proof_line(name: str, score: Any, points: Any) -> str:
    return json.dumps(
        {"problem_idx": name, "model_prediction": {"average_automatic_rating": score, "human_rating": points}}
    )


def test_calibration_of_known_proofs(tmp_path: Path) -> None:
    file = tmp_path / "known.jsonl"
    file.write_text(
        "\n".join([proof_line("IMO-1", 1.0, 7), proof_line("IMO-2", 0.95, 0), proof_line("Putnam-A1", 0.0, 1)])
    )
    result = json.loads(calibration(file, "--bins", "2", "--json").stdout)
    low, high = result["bins"]
    assert (low["score"], low["proofs"], low["human"]) == ([0.0, 0.5], 1, pytest.approx(0.1))
    assert (high["proofs"], high["human"], high["interval"]) == (2, 0.5, pytest.approx(wilson(1, 2)))
    assert result["all"][0]["calibration error"] == pytest.approx((0.1 + 2 * (0.975 - 0.5)) / 3)
    assert result["all"][0]["pearson"] == pytest.approx(np.corrcoef([1, 0.95, 0], [1, 0, 0.1])[0, 1])


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (proof_line("Olympiad-1", 1, 7), "known.jsonl:2: problem_idx 'Olympiad-1' begins with no contest"),
        (
            proof_line("IMO-1", 1, 8),
            "known.jsonl:2: expected average_automatic_rating from 0 to 1, human_rating from 0 to 7",
        ),
        (proof_line("IMO-1", "good", 7), "known.jsonl:2: expected average_automatic_rating"),
        ("[]", "known.jsonl:2: this line is not a JSON object"),
        ("{}", "known.jsonl:2: problem_idx '' begins with no contest"),
    ],
)
def test_unusable_proofs_are_errors(line: str, fault: str, tmp_path: Path) -> None:
    file = tmp_path / "known.jsonl"
    file.write_text(f"{proof_line('IMO-1', 1.0, 7)}\n{line}\n")
    done = calibration(file)
    assert done.exit_code != 0 and fault in str(done.exception) and "known" in done.output
    file.write_text(line)
    assert "there is no proof with both a score and points" in str(calibration(file).exception)


SPLITS = ("train", "validation", "test")


def text_of(row: dict[str, Any], column: str) -> str:
    return str(row[column][0]["content"])


def test_planted_flaws_match_the_rows() -> None:
    task = tasks.verification()
    assert check_task(task)
    rows = [task.row(i, "validation") for i in range(300)]
    for grade in ("1", "0.5", "0"):
        assert sum(r["target"] == grade for r in rows) == 100  # accuracy is balanced accuracy
    for row in rows:
        problem, proof = text_of(row, "prompt").split(" Proof: ")
        total, wrong, gaps = int(problem.split()[2].strip(".")), list[int](), 0
        moves = problem.replace("Double", "* 2").replace("Halve", "/ 2").replace("Add", "+").replace("Take", "-")
        todo = [m.strip() for m in moves.split(".")[1:] if m.strip()]
        for number, line in enumerate(proof.strip(".").split("; "), 1):  # graded once more, in another way
            before, sign, by, _, after = line.split(": ")[1].split()
            follows = int(before) == value_before(sign, by, after)
            if follows and f"{sign} {by}" == todo[0] and int(before) == total:
                todo = todo[1:]
            elif follows and not gaps and [f"{sign} {by}"] == todo[1:2] and int(before) == worked(total, todo[0]):
                gaps, todo = number, todo[2:]
            else:
                wrong.append(number)
                break
            total = int(after)
        assert row["line"] == (wrong[0] if wrong else gaps or None)
        assert row["target"] == ("0" if wrong else "0.5" if gaps else "1")
        assert rewards.verifying([task.gold(row)], [row["target"]], [row["line"]]) == [1.0]
    steps = {(r["steps"], r["target"]) for r in rows}
    assert steps >= {(n, g) for n in range(2, 6) for g in ("1", "0.5", "0")} and (1, "0.5") not in steps


def worked(total: int, move: str) -> float:
    sign, by = move.split()
    return {"+": total + int(by), "-": total - int(by), "*": total * int(by), "/": total / int(by)}[sign]


def value_before(sign: str, by: str, after: str) -> float:
    return worked(int(after), f"{ {'+': '-', '-': '+', '*': '/', '/': '*'}[sign] } {by}")


def test_only_the_lines_of_a_proof_are_graded() -> None:
    task = tasks.proving()
    row = {"problem": "Start with 12. Add 5. Double. Take 3.", "start": 12, "moves": [["+", 5], ["*", 2], ["-", 3]]}
    for proof, grade in {
        "Proof: 1: 12 + 5 = 17; 2: 17 * 2 = 34; 3: 34 - 3 = 31.": 1.0,
        "Proof : 1 : 12 + 5 = 17 ; 2 : 17 * 2 = 34 ; 3 : 34 - 3 = 31. Evaluation : nonsense": 1.0,
        "Proof: 1: 12 + 5 = 17; 2: 34 - 3 = 31.": 0.5,
        "Proof: 1: 34 - 3 = 31.": 0.0,  # two steps are left out
        "Proof: 1: 12 + 5 = 17; 2: 17 * 2 = 34.": 0.0,  # it breaks off
        "Proof: 1: 12 + 5 = 18; 2: 18 * 2 = 36; 3: 36 - 3 = 33.": 0.0,
        "Proof: 1: 12 + 5 = 17; 2: 17 * 2 = 34; 3: 34 - 3 = 31; 4: 31 - 3 = 28.": 0.0,
        "Proof: 2: 12 + 5 = 17; 3: 17 * 2 = 34; 4: 34 - 3 = 31.": 0.0,
        "1: 12 + 5 = 17; 2: 17 * 2 = 34; 3: 34 - 3 = 31.": 0.0,
        "Proof: Proof: 1: 12 + 5 = 17.": 0.0,
        "Proof: 1: ١٢ + 5 = 17; 2: 17 * 2 = 34; 3: 34 - 3 = 31.": 0.0,  # digits of other scripts are none
        f"Proof: 1: {'9' * 10_000} + 5 = 17.": 0.0,
        "": 0.0,
    }.items():
        assert task.score(row, proof) == grade, proof
    twice = {"start": 5, "moves": [["-", 5], ["*", 2], ["*", 2]]}  # two steps that look the same
    assert task.score(twice, "Proof: 1: 5 - 5 = 0; 2: 0 * 2 = 0; 3: 0 * 2 = 0.") == 1.0
    assert task.gold(row).startswith("Proof: 1: 12 + 5 = 17; 2: 17 * 2 = 34; 3: 34 - 3 = 31. Evaluation: ")


def test_the_careless_author_errs_evaluates_rightly_and_refines() -> None:
    task = tasks.proving()
    rows = [task.row(i, "train") for i in range(400)]
    assert rows == [task.row(i, "train") for i in range(400)] == json.loads(json.dumps(rows))
    fresh = [r for r in rows if text_of(r, "prompt") == r["problem"]]
    again = [r for r in rows if text_of(r, "prompt") != r["problem"]]
    assert len(again) == pytest.approx(160, abs=40)
    for row in rows:
        own = read_proof(text_of(row, "completion"))[1]
        assert own is not None and own.score == own.due == task.score(row, text_of(row, "completion"))
        assert task.score(row, task.gold(row)) == 1.0
    for row in again:
        attempt = text_of(row, "prompt").removeprefix(row["problem"]).removesuffix("Refine.").strip()
        own = read_proof(attempt)[1]
        assert task.score(row, attempt) < 1.0 and own is not None
        assert text_of(task.refinement(row, attempt), "prompt") == text_of(row, "prompt")
    right = [np.mean([task.score(r, text_of(r, "completion")) for r in some]) for some in (fresh, again)]
    assert 0.6 < right[0] < right[1] < 0.9  # only what is behind the flaw is written anew
    assert all(text_of(task.row(i, s), "prompt") == task.row(i, s)["problem"] for i in range(50) for s in SPLITS[1:])
    with pytest.raises(FieldMistake, match="slips"):
        tasks.proving(slips=0.0)


def test_every_text_of_both_tasks_is_made_of_known_words() -> None:
    for task in (tasks.verification(proving=0.5), tasks.proving()):
        tokenizer = tokenizer_for(task)
        rendered = documents(tokenizer, [task.row(i, "train") for i in range(500)])
        assert not any(tokenizer.unk_token_id in (*d.prompt, *d.completions[0]) for d in rendered)
    kinds = ["target" in tasks.verification(proving=0.5).row(i, "train") for i in range(200)]
    assert 60 < sum(kinds) < 140 and all("target" in tasks.verification(proving=0.5).row(i, "test") for i in range(50))
