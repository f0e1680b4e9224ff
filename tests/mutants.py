# ruff: noqa: E501 - a table
"""Mutants: faults inserted into the core and the algorithms, one at a time, which the contract tests must detect.

Each is (name, file below src/rllab, the original source, its replacement, the test that must detect it; "" for the
contract of the cartpole recipe).
"""

MUTANTS = [
    ("optimizer is not restored", "core/trainer.py", "self.optimizers.load_state(shared[\"optim\"], checkpoint.fill)", "pass", ""),
    ("weights are not restored", "core/trainer.py", "load_parts(self.algorithm.parts(), checkpoint)", "pass", ""),
    ("state is not restored", "core/trainer.py", "self.algorithm.load_state(", "len(", ""),
    ("step is saved one too high", "core/trainer.py", 'shared = {"step": self.step,', 'shared = {"step": self.step + 1,', ""),
    ("rows are not cut", "core/logs.py", ' and row["step"] <= step)', ")", ""),
    ("row of the checkpoint is lost", "core/trainer.py", 'self._reported = self.engine.any(last.get("step", 0) == self.step)', "self._reported = True", ""),
    ("learning rate ignores the step", "core/trainer.py", "self.optimizers.set_rates(self.step,", "self.optimizers.set_rates(0,", "test_trainer.py::test_run_folder_is_the_record"),
    ("chance ignores the index", "core/algorithm.py", "_purpose(purpose), *index]", "_purpose(purpose)]", "test_trainer.py::test_chance_is_a_function_of_seed_purpose_and_index"),
    ("chance ignores the seed", "core/algorithm.py", "[self.seed, rank,", "[0, rank,", ""),
    ("chance is the process's own", "core/algorithm.py", "np.random.Generator(np.random.PCG64(self._entropy(purpose, index, shared)))", "np.random.default_rng()", ""),
    ("a micro-batch is dropped", "core/engine.py", "pieces = list(split(update.batch, self.micro_batch))", "pieces = list(split(update.batch, self.micro_batch))[:1]", ""),
    ("tensors in the state are left out", "core/state.py", "tensors[path] = _tensor(tree)", "tensors[path] = _tensor(tree) * 0", ""),
    ("evaluation trains", "control/algorithm.py", "returns, lengths, worth, reports = self._measure(self.eval_episodes, 0, step)", "returns, lengths, worth, reports = self._measure(self.eval_episodes, 0, step); self.env_steps += 1", ""),
    ("evaluation draws anew each time", "control/vector.py", "self.index, self._seeds = index, self.ctx.seeds(self.purpose, *index)", "import os; self.index, self._seeds = index, self.ctx.seeds(self.purpose, *index, *os.urandom(2))", ""),
    ("open episodes are forgotten", "control/vector.py", 'self.env.unwrapped.load_state_dict(state["env"])', "pass", ""),
    ("replay is forgotten", "control/replay.py", 'self._arrays, self._segments, self._summed = state["added"], {}, {}, 0', 'self._arrays, self._segments, self._summed = 0, {}, {}, 0', ""),
    ("target network is forgotten", "core/algorithm.py", "for name, value in state.items():", "for name, value in ((k, v) for k, v in state.items() if k != 'target'):", ""),
    ("mean in place of weighted sum", "algos/dqn.py", 'return batch["weight"] @ loss_B,', 'return loss_B.mean(),', ""),
    ("a loss draws", "algos/dqn.py", "target = self.td_target(batch)", "target = self.td_target(batch) + torch.randn(len(q))", ""),
    ("nothing is learned", "core/engine.py", "            part.step()", "            pass", ""),
    ("gradients are not summed over ranks", "core/engine.py", "                _reduce(part.parameters)", "                pass", "test_ranks.py::test_two_ranks_equal_one[torchrun]"),
    ("a checkpoint is not renamed into place", "core/checkpoint.py", "os.rename(aside, final)", "shutil.copytree(aside, final)", "test_interruptions.py::test_full_disk_costs_no_finished_work"),
    ("checksums are not looked at", "core/checkpoint.py", " or _sha256(path) != checksum", "", "test_trainer.py::test_damaged_newest_checkpoint_is_passed_over"),
    ("numbers that are not finite pass", "core/engine.py", "if not math.isfinite(total):", "if False:", "test_trainer.py::test_numbers_that_are_not_finite_stop_the_run_before_the_step"),
    ("advantages are not above a mean", "algos/grpo.py", "rewards_PG - mean, 0.0)", "rewards_PG, 0.0)", "test_grpo.py::test_advantages_have_known_values"),
    ("a reward that fails counts as 0", "rewards/scoring.py", 'self.faults.append(Fault("", str(failed), a, traceback=failed.traceback))', "self.values[a] = 0.0", "test_rewards.py::test_failures_are_skipped_and_counted_on_request"),
    ("all but one rollout are dropped", "algos/online.py", "return self.rollouts + super().samples()", "rows, self.rollouts = self.rollouts, []; return rows[:1] + super().samples()", "test_grpo.py::test_every_rollout_is_kept_once_also_after_a_stop"),
    ("a label is appended to a half-written line", "core/labels.py", 'line if file.read(1) == b"\\n" else b"\\n" + line', "line", "test_labels.py::test_what_a_killed_process_has_half_written_costs_its_own_line"),
    ("labels are taken anew in each round", "algos/prefppo.py", "self.asked, self.fingerprint = Window(), 0, fingerprint", "self.asked, self.fingerprint = Window(), 0, ''", "test_labels.py::test_each_label_brings_as_many_updates_as_a_comparison_of_the_annotator"),
]  # fmt: skip
