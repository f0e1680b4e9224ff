"""What an autoregressive model predicts for a horizon, as a function of the plan.

Axes: N environments, L lags (the newest first), O outputs, A actions, T steps, M blocks of held actions.
"""

import torch
from torch import Tensor

from rllab.control.autoregressive import Autoregressive
from rllab.control.memory import Memory


class Forecast:
    """The predictions of a model for T = `steps` steps, for plans of M = `blocks` actions that are held.

    forced [M, A, T, O]: how each entry of a plan moves the outputs. missing [M, T]: how a shortage during a block does.
    Loads and other disturbances stay as they are now.
    """

    @torch.inference_mode(False)
    @torch.no_grad()
    def __init__(self, net: Autoregressive, steps: int, blocks: int) -> None:
        self.net, self.shape, (weights, level) = net, net.shape, net.coefficients()
        lags, own = self.shape.lags, self.shape.own
        self.b = weights[:, : lags * self.shape.actions].float().view(len(weights), lags, -1)
        self.a, self.c, self.e = torch.split(weights[0, own:].float(), [lags, lags, 2 + self.shape.common])
        self.d, self.steps = level.float(), steps
        held = torch.eye(blocks).repeat_interleave(steps // blocks, 1)  # [M, T], 1 in a block
        held = torch.cat((torch.zeros(blocks, lags - 1), held), 1)
        nothing = torch.zeros(blocks, 1, lags)
        self.missing = self._roll(nothing, self._lacked(held[:, None]))[..., 0]
        each = torch.einsum("mt,ab->matb", held, torch.eye(self.shape.actions)).flatten(0, 1)
        nothing = nothing.expand(-1, self.shape.outputs, -1).repeat_interleave(self.shape.actions, 0)
        self.forced = self._roll(nothing, self._acted(each)).view(blocks, -1, steps, self.shape.outputs)

    def unforced(self, memory: Memory) -> Tensor:
        """Outputs [N, T, O] if all future actions, and their shortages, were 0."""
        past, local = memory.actions[:, : self.shape.lags - 1], memory.local
        acted = torch.cat((past.flip(1), past.new_zeros(len(past), self.steps, past.shape[2])), 1)
        short = self.net.shortage(past, local[..., 1:]).flip(2)
        lacked = torch.cat((short, short.new_zeros(*short.shape[:2], self.steps)), 2)
        now = local[..., :1]
        common = memory.common[:, None].expand(-1, now.shape[1], -1)
        measured = torch.cat((now, now.mean(1, keepdim=True).expand_as(now), common), 2)
        constant = measured @ self.e + self.d + memory.bias
        return self._roll(memory.outputs, self._acted(acted) + self._lacked(lacked) + constant[..., None])

    def outputs(self, unforced: Tensor, plan: Tensor, local: Tensor) -> Tensor:
        """Outputs [N, T, O] of plans [N, M, A] under local disturbances [N, O, 1]; differentiable in the plans."""
        moved = torch.einsum("nma,mato->nto", plan, self.forced)
        return unforced + moved + torch.einsum("nom,mt->nto", self.net.shortage(plan, local), self.missing)

    def _acted(self, actions: Tensor) -> Tensor:
        """What actions [N, L - 1 + T, A], the oldest first, add to the changes [N, O, T]."""
        return torch.einsum("ntal,ola->not", actions.unfold(1, self.shape.lags, 1), self.b.flip(1))

    def _lacked(self, shortages: Tensor) -> Tensor:
        """What shortages [N, O, L - 1 + T], the oldest first, add to the changes [N, O, T]."""
        return torch.einsum("notl,l->not", shortages.unfold(2, self.shape.lags, 1), self.c.flip(0))

    def _roll(self, y: Tensor, added: Tensor) -> Tensor:
        """Outputs [N, T, O] after the last ones [N, O, L], with what is added to each change [N, O, T]."""
        rows = []
        for change in added.unbind(2):
            rows.append(y[..., 0] + y @ self.a + change)
            y = torch.cat((rows[-1][..., None], y[..., :-1]), 2)
        return torch.stack(rows, 1)
