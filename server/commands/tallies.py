"""What is counted in memory, to be written in batches: views of listings, and whose likes have changed."""

from collections import Counter
from uuid import UUID


class Tallies:
    """One instance's counts since they were last written. An instance that is killed loses a second of them."""

    def __init__(self) -> None:
        self.views: Counter[UUID] = Counter()
        self.liked: set[UUID] = set()

    def take(self, most: int) -> tuple[dict[UUID, int], set[UUID]]:
        """Take out what there is of at most so many listings: their views, and those whose likes have changed."""
        ids = [*self.liked, *(self.views.keys() - self.liked)][:most]
        views = {id_: self.views.pop(id_) for id_ in ids if id_ in self.views}
        liked = self.liked.intersection(ids)
        self.liked -= liked
        return views, liked

    def put_back(self, views: dict[UUID, int], liked: set[UUID]) -> None:
        """Keep what could not be written for the next time."""
        self.views.update(views)
        self.liked |= liked
