"""Events: what happens, by name, and which tags of which caches are invalid then, said in one place.

    on("price_updated", tags=["quote:{symbol}"], cache="stock")
    emit("price_updated", symbol="AAPL")

A world has those of its settings and those that were declared for it; the default world also has those that were
declared for the process, whatever its settings are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from layercache.core.policy import checked_tags
from layercache.errors import InvalidOption, WrongFields
from layercache.templates import Field, parsed, spelled

__all__ = ["Events", "Invalidation", "invalidations", "of_the_process", "tag_template"]


class Invalidation(NamedTuple):
    """What was invalidated of one cache.

    Attributes:
        cache: its name.
        tags: all of them at once.
        soft: whether what carries them is stale, and not gone.
    """

    cache: str
    tags: tuple[str, ...]
    soft: bool


class _Reaction(NamedTuple):
    """One tag that an event makes invalid: a template of its fields."""

    cache: str
    template: tuple[Field, ...]
    soft: bool


class Events:
    """What was declared, by the names of events, which are compared without case.

    Each step is one of a dict, so threads may declare and emit at once without a lock.
    """

    def __init__(self) -> None:
        self._reactions: dict[str, dict[_Reaction, None]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(list(self._reactions))

    def declare(self, event: str, cache: str, tags: Iterable[str], *, soft: bool) -> None:
        """Have `event` invalidate `tags` of `cache`, besides what it does already; twice is as good as once."""
        templates = [tag_template(tag) for tag in checked_tags(tags)]
        reactions = self._reactions.setdefault(_checked_event(event), {})
        for template in templates:
            reactions.setdefault(_Reaction(cache.lower(), template, soft))

    def reactions(self, event: str) -> list[_Reaction] | None:
        """Return what `event` does, None where nobody has declared it."""
        found = self._reactions.get(event.lower())
        return None if found is None else list(found)


of_the_process: Final = Events()
"""What was declared by `layercache.on`, for whichever is the default world."""


def _checked_event(event: Any) -> str:
    if not isinstance(event, str) or not event.strip():
        raise InvalidOption(f"an event has a name, such as 'price_updated'; got {event!r}")
    return event.lower()


def tag_template(tag: str) -> tuple[Field, ...]:
    """Return the parts of a tag that is a template of an event's fields; `InvalidOption` for what cannot be one."""
    fields = parsed("the tag", tag, InvalidOption)
    for _, field in fields:
        if field is not None and not field.isidentifier():
            raise InvalidOption(
                f"the tag {tag!r} names {field!r}; a field is a plain name, such as {{symbol}}, that emit is given"
            )
    return tuple(fields)


def invalidations(
    event: str, fields: Mapping[str, Any], declared: Iterable[Events]
) -> list[Invalidation] | None:
    """Return what `event` with `fields` makes invalid: of each cache what is gone, then what is stale; None where none
    of `declared` knows the event.

    Raises `WrongFields` for other fields than its templates name.
    """
    known = [reactions for each in declared if (reactions := each.reactions(event)) is not None]
    if not known:
        return None
    reactions = [reaction for each in known for reaction in each]
    named = dict.fromkeys(field for each in reactions for _, field in each.template if field is not None)
    # one that settings have taken everything from concerns nobody, whatever it says
    if reactions and named.keys() != fields.keys():
        raise WrongFields(event, named, fields)
    made: dict[tuple[str, bool], dict[str, None]] = {}
    for reaction in reactions:
        tags = made.setdefault((reaction.cache, reaction.soft), {})
        tags[spelled(reaction.template, fields)] = None
    found: list[Invalidation] = []
    for cache in dict.fromkeys(cache for cache, _ in made):
        gone = list(made.get((cache, False), ()))
        stale = [tag for tag in made.get((cache, True), ()) if tag not in gone]
        for due, soft in ((gone, False), (stale, True)):
            if due:
                found.append(Invalidation(cache, checked_tags(due), soft))
    return found
