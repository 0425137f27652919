"""The query language of Stripe's search: `active:'true' AND metadata['tag']:'ours'`, and `OR`, `-`, `~`, `<`, `>`."""

import re
from collections.abc import Callable

from sandbox.errors import invalid
from sandbox.shapes import Obj

Predicate = Callable[[Obj], bool]
CLAUSE = re.compile(
    r"""\s*(?P<not>-)?(?P<field>[a-z_.]+)(\[(?P<q>['"])(?P<key>.*?)(?P=q)\])?"""
    r"""(?P<op>:|~|>=|<=|>|<)(?P<q2>['"]?)(?P<value>(?:\\.|[^\\])*?)(?P=q2)(?=\s|$)""",
    re.VERBOSE,
)
JOIN = re.compile(r"\s+(AND|OR)\s+", re.IGNORECASE)


def parse(query: str) -> Predicate:
    """Whether an object matches. AND and OR can not be mixed, as at Stripe."""
    clauses, joins, place = [], [], 0
    while True:
        clause = CLAUSE.match(query, place)
        if clause is None:
            raise invalid(f"We were unable to parse your search query: {query}", "query")
        clauses.append(_predicate(clause))
        place = clause.end()
        if not query[place:].strip():
            break
        join = JOIN.match(query, place)
        if join is None:
            raise invalid(f"We were unable to parse your search query: {query}", "query")
        joins.append(join[1].upper())
        place = join.end()
    if len(set(joins)) > 1:
        raise invalid("AND and OR can not be combined in one query.", "query")
    combine = any if "OR" in joins else all
    return lambda obj: combine(clause(obj) for clause in clauses)


def _predicate(clause: re.Match[str]) -> Predicate:
    field, key, sign, wanted = clause["field"], clause["key"], clause["op"], clause["value"]

    def matches(obj: Obj) -> bool:
        value = obj.get(field)
        if key is not None:
            value = (value or {}).get(key)
        return _compare(value, sign, wanted) != bool(clause["not"])

    return matches


def _compare(value: object, sign: str, wanted: str) -> bool:
    if wanted == "null" and sign == ":":
        return value is None
    if value is None:
        return False
    if sign == ":":
        text = str(value).lower() if isinstance(value, bool) else str(value)
        return text.casefold() == wanted.casefold()
    if sign == "~":
        return wanted.casefold() in str(value).casefold()
    if not isinstance(value, int) or not wanted.lstrip("-").isdigit():
        return False
    number = int(wanted)
    return {">": value > number, "<": value < number, ">=": value >= number, "<=": value <= number}[sign]
