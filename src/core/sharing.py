"""Work on rows shared by several processes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .files import UserError
from .sharding import lockstep


@dataclass(frozen=True)
class Share:
    """The part of one process in work that `size` processes share; by default there is one process.

    Args:
        rank: Number of this process.
        size: Number of processes.
        model: Model whose weights the processes share too, so that they must make its passes together.
    """

    rank: int = 0
    size: int = 1
    model: Any = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def spread(self, items: Sequence, work: Callable[[Sequence], Sequence]) -> list:
        """Apply `work` to items, each in one process.

        Args:
            items: The same on every process.
            work: Returns one result for each of the items it is given.

        Returns:
            The results of all items, in their order, on every process.

        Raises:
            UserError: `work` failed with it on some process; raised on every process, so that none waits.
        """
        if self.size == 1:
            return list(work(items))
        from accelerate.utils import gather_object  # slow to load

        failure, found = "", []
        with lockstep(self.model):
            try:
                found = list(work(items[self.rank :: self.size]))
            except UserError as error:
                failure = str(error)
        gathered = gather_object([(failure, found)])
        if reason := next((reason for reason, _ in gathered if reason), ""):
            raise UserError(reason)
        results: list[Any] = [None] * len(items)
        for rank, (_, part) in enumerate(gathered):
            results[rank :: self.size] = part
        return results

    def from_main(self, make: Callable[[], Any]) -> Any:
        """What `make` returns on the first process, on every process."""
        if self.size == 1:
            return make()
        from accelerate.utils import broadcast_object_list  # slow to load

        made = [make() if self.is_main else None]
        broadcast_object_list(made)
        return made[0]
