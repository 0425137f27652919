"""The table of calls, and the answers that all kinds of objects share: retrieve, list, search."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sandbox import search
from sandbox.errors import ApiError, invalid, missing
from sandbox.params import Tree
from sandbox.shapes import Obj
from sandbox.views import render, tree_of
from sandbox.world import World

Handler = Callable[..., Obj]
Filter = Callable[[Obj, Any], bool]
DEFAULT_LIMIT, MAX_LIMIT = 10, 100
PAGING = frozenset({"limit", "starting_after", "ending_before", "expand"})


@dataclass(frozen=True)
class Route:
    """One call: `params` names the class in `stripe.params` that types what it takes."""

    method: str
    path: str
    params: str
    handler: Handler
    pattern: re.Pattern[str]


ROUTES: list[Route] = []


def route(method: str, path: str, params: str) -> Callable[[Handler], Handler]:
    """The decorated function gets the world, the checked parameters, and what stands for `{}` in the path."""

    def register(handler: Handler) -> Handler:
        pattern = re.compile(re.sub(r"\\{\\}", "([^/]+)", re.escape(path)))
        ROUTES.append(Route(method, path, params, handler, pattern))
        return handler

    return register


def resolve(method: str, path: str) -> tuple[Route, tuple[str, ...]]:
    """Fixed words win over `{}`: `/v1/prices/search` is no price."""
    found = [(one, match.groups()) for one in ROUTES if one.method == method and (match := one.pattern.fullmatch(path))]
    if not found:
        message = f"Unrecognized request URL ({method}: {path}). The sandbox imitates part of Stripe's API."
        raise ApiError(message, status=404)
    return min(found, key=lambda pair: len(pair[1]))


def shown(world: World, obj: Obj, params: Tree) -> Obj:
    return render(world, obj, tree_of(params.get("expand")))


def retrieves(path: str, params: str, kind: str) -> None:
    """Register GET of one object. A deleted one is answered as such."""

    def retrieve(world: World, params: Tree, object_id: str) -> Obj:
        obj = world.objects[kind].get(object_id)
        if obj is None or (obj.get("deleted") and kind not in ("customer", "product")):
            raise missing(kind, object_id, "id", status=404)
        return obj if obj.get("deleted") else shown(world, obj, params)

    route("GET", path + "/{}", params)(retrieve)


def lists(path: str, params: str, kind: str, **filters: Filter) -> None:
    """Register GET of a page, newest first. A filter that is not given here compares the field of its name."""

    def listing(world: World, params: Tree) -> Obj:
        chosen = {name: value for name, value in params.items() if name not in PAGING}
        matching = [
            obj
            for obj in world.all(kind)
            if all(filters.get(name, _same(name))(obj, value) for name, value in chosen.items())
        ]
        return page(world, matching[::-1], path, params)

    route("GET", path, params)(listing)


def _same(name: str) -> Filter:
    def matches(obj: Obj, value: Any) -> bool:
        return same(obj.get(name), value)

    return matches


def same(held: Any, wanted: Any) -> bool:
    """Equal, within the limits (`created[gte]`), or with these parts (`automatic_tax[enabled]`)."""
    if not isinstance(wanted, dict):
        return bool(held == wanted)
    if isinstance(held, dict):
        return all(held.get(name) == value for name, value in wanted.items())
    return in_range(held, wanted)


def in_range(number: int | None, limits: dict[str, int]) -> bool:
    if number is None:
        return False
    tests = {"gt": number.__gt__, "gte": number.__ge__, "lt": number.__lt__, "lte": number.__le__}
    return all(tests[name](limit) for name, limit in limits.items())


def page(world: World, found: list[Obj], url: str, params: Tree) -> Obj:
    """Cursor pagination as Stripe's: `ending_before` gives the page just before, still newest first."""
    limit = params.get("limit", DEFAULT_LIMIT)
    if not 1 <= limit <= MAX_LIMIT:
        raise invalid(
            f"This value must be between 1 and {MAX_LIMIT} (inclusive).", "limit", "parameter_invalid_integer"
        )
    ids = [obj["id"] for obj in found]
    if before := params.get("ending_before"):
        end = _position(ids, before, "ending_before")
        start, more = max(0, end - limit), end > limit
        part = found[start:end]
    else:
        start = _position(ids, params["starting_after"], "starting_after") + 1 if "starting_after" in params else 0
        part, more = found[start : start + limit], start + limit < len(found)
    below = tree_of(params.get("expand")).get("data", {})
    data = [render(world, obj, below) for obj in part]
    return {"object": "list", "data": data, "has_more": more, "url": url}


def _position(ids: list[str], cursor: str, param: str) -> int:
    if cursor not in ids:
        raise invalid(f"No such object: '{cursor}'", param, "resource_missing")
    return ids.index(cursor)


def searches(path: str, params: str, kind: str) -> None:
    """Register GET of Stripe's query language. Here it is never behind; the real one may lag by a minute."""

    def searching(world: World, params: Tree) -> Obj:
        wanted = search.parse(params["query"])
        found = [obj for obj in world.all(kind) if wanted(obj)][::-1]
        start = _page_number(params.get("page", "0"))
        limit = params.get("limit", DEFAULT_LIMIT)
        below = tree_of(params.get("expand")).get("data", {})
        data = [render(world, obj, below) for obj in found[start : start + limit]]
        more = start + limit < len(found)
        return {
            "object": "search_result",
            "data": data,
            "has_more": more,
            "next_page": str(start + limit) if more else None,
            "url": path + "/search",
        }

    route("GET", path + "/search", params)(searching)


def _page_number(text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise invalid(f"Invalid page: {text}", "page")
    return int(text)


def only(params: Tree, names: Iterable[str]) -> Tree:
    """The given ones of these parameters; an empty string unsets."""
    return {name: None if params[name] == "" else params[name] for name in names if name in params}


def refuse(params: Tree, names: Iterable[str]) -> None:
    """Better an error than an answer that silently leaves out what was asked for."""
    for name in names:
        if params.get(name):
            raise invalid(f"The sandbox does not imitate `{name}`.", name)
