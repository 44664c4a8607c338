"""The ring buffers of model transitions, one per member of the stack, in one tensor on the training device."""

import torch
from torch import Tensor


class Pool:
    """First-in-first-out buffers of packed rows: `rows` `[S, capacity, width]`, a size and a write position each."""

    def __init__(self, capacities: list[int], width: int, device: torch.device | str = "cpu") -> None:
        """Allocate room for `capacities[m]` rows of member m; nothing is readable before it is written."""
        self.capacities = capacities
        self.rows = torch.empty(len(capacities), max(capacities), width, device=device)
        self.sizes = [0] * len(capacities)
        self.positions = [0] * len(capacities)

    def write(self, member: int, rows: Tensor) -> None:
        """Append rows `[n, width]`, overwriting the oldest once the member's capacity is reached."""
        capacity = self.capacities[member]
        self.sizes[member] = min(self.sizes[member] + len(rows), capacity)
        while len(rows):
            position = self.positions[member]
            head = rows[: capacity - position]
            self.rows[member, position : position + len(head)] = head
            self.positions[member] = (position + len(head)) % capacity
            rows = rows[len(head) :]

    def gather(self, index: Tensor) -> Tensor:
        """Read rows `index` `[…, S, B]` of each member: `[…, S, B, width]`."""
        members, capacity, width = self.rows.shape
        offset = torch.arange(members, device=index.device)[:, None] * capacity
        return self.rows.view(-1, width)[index + offset]
