"""Requests that nobody in their right mind sends: good ones of every operation, broken in several ways at once."""

from __future__ import annotations

import base64
import copy
import gzip
import json
import random
import re
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import quote

LONG = 20_000


@dataclass(frozen=True)
class Hostile:
    """One request. `path` is quoted as it goes over the wire; `data` is the body's bytes."""

    method: str
    path: str
    query: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    data: bytes | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path[:200]}?{self.query[:200]} {self.headers} {(self.data or b'')[:300]!r}"


@dataclass
class Target:
    """An operation of the API: how a good request of it looks."""

    method: str
    path: str
    body: dict[str, Any] | None
    parameters: list[str]
    fields: list[str]


def targets(document: dict[str, Any]) -> list[Target]:
    """Every operation of an OpenAPI document."""
    found = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json")
            names = [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "query"]
            fields = list(content["schema"]["properties"]) if content else []
            body = content["example"] if content else None
            found.append(Target(method.upper(), f"/api/v1{path}", body, names, fields))
    return found


def _deep(random: random.Random, bracket: str = "[") -> str:
    """Text that nests from a little too deep to absurdly deep."""
    depth = random.choice([101, 990, 5_000, 100_000])
    return "[" * depth + "]" * depth if bracket == "[" else '{"a":' * depth + "1" + "}" * depth


STRINGS = (
    "",
    " ",
    "\x00",
    "a\x00b",
    "\x1b[2J",
    "line\nbreak\r\nX-Injected: 1",
    "\t=cmd|' /C calc'!A0",
    "\x7f\x80\x9f",
    "\ud800",
    "\udfff\ud800",
    "\U0010ffff",
    "\ufeff",
    "\u202ereversed",
    "e\u0301" * 300,
    "\U0001f469\u200d\U0001f4bb" * 60,
    "Ω" * LONG,
    "x" * LONG,
    "' OR '1'='1' --",
    "'; DROP TABLE lots; --",
    "%s%n%x{{7*7}}${7*7}<script>alert(1)</script>",
    "../../../../etc/passwd",
    "acc_",
    "use_" + "0" * 23,
    "NaN",
    "1e3",
    "\uff11\uff12",
    "0x10",
    "1_000",
    "+1",
    "2026-02-30T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
    "0001-01-01T00:00:00+23:59",
    "2026-11-21T10:00:00+99:99",
    "2026-11-21 10:00",
    "1969-12-31T23:59:59Z",
    "per_unit=1e400",
)
NUMBERS = (
    "0",
    "-0",
    "-1",
    "1e400",
    "-1e400",
    "1e-400",
    "1E+308",
    "0.0000001",
    "1.0000000000000000000000000000000000000000000000001",
    "1000000000.000001",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775809",
    "18446744073709551616",
    "1e9999999999",
    "9" * 4_000,
    "0." + "1" * 4_000,
    "1.9",
    "2147483648",
)
NOT_JSON = (
    "NaN",
    "Infinity",
    "-Infinity",
    "01",
    ".5",
    "1.",
    "+1",
    "undefined",
    "'a'",
    "//c\n1",
    '"\n"',
    '"\\x"',
    "{a:1}",
)
OTHERS = ("null", "true", "false", "[]", "{}", "[[]]", '[{"a":1}]', '{"":""}', '{"$ref":"#"}', '{"__proto__":{"a":1}}')


HEADERS = (
    "Accept",
    "Authorization",
    "Content-Encoding",
    "Cookie",
    "Expect",
    "Host",
    "Idempotency-Key",
    "If-Match",
    "Origin",
    "Range",
    "Referer",
    "X-Api-Key",
    "X-Forwarded-For",
    "X-HTTP-Method-Override",
    "X-Request-Id",
)


def _value(random: random.Random) -> str:
    """JSON text of a value that seldom belongs where it is put."""
    kind = random.random()
    if kind < 0.35:
        return json.dumps(random.choice(STRINGS), ensure_ascii=True)
    if kind < 0.45:
        safe = random.choice(STRINGS).encode("utf-8", "replace").decode()
        return json.dumps(safe, ensure_ascii=False)
    if kind < 0.70:
        return random.choice(NUMBERS)
    if kind < 0.88:
        return random.choice(OTHERS)
    if kind < 0.94:
        return random.choice(NOT_JSON)
    if kind < 0.97:
        return _deep(random, random.choice("[{"))
    return "[" + ",".join(["1"] * random.choice([1_001, 30_000])) + "]"


class _Text(str):
    """JSON text that is put into a body as it is."""


def _dumps(value: Any, random: random.Random) -> str:
    """JSON with the broken parts as they are, and now and then a name twice."""
    if isinstance(value, _Text):
        return str(value)
    if isinstance(value, dict):
        pairs = [(json.dumps(name), _dumps(part, random)) for name, part in value.items()]
        if pairs and random.random() < 0.05:
            pairs.append(random.choice(pairs))
        return "{" + ",".join(f"{name}:{part}" for name, part in pairs) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_dumps(part, random) for part in value) + "]"
    return json.dumps(value)


@dataclass
class Maker:
    """Makes requests from a seed. `ids` are values of path parameters that exist, `accounts` names of accounts."""

    seed: int
    targets: list[Target]
    ids: dict[str, list[str]]
    accounts: list[str]
    tokens: list[str]
    random: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)

    def request(self) -> Hostile:
        """A good request with one to three things wrong, or, seldom, with none."""
        target = self.random.choices(self.targets, [1 if target.body is None else 4 for target in self.targets])[0]
        made = self._good(target)
        for _ in range(self.random.choice([0, 0, 1, 1, 1, 2, 3])):
            made = self.random.choice(self._ways(target))(made)
        return made

    def _good(self, target: Target) -> Hostile:
        path = re.sub(r"{ref}/(close|suspend)", r"spare/\1", target.path)  # the others are still needed
        for name, known in self.ids.items():
            path = path.replace(f"{{{name}}}", self.random.choice(known))
        headers = [("Authorization", f"Bearer {self.random.choice(self.tokens)}")]
        query = ""
        if "account" in target.parameters and self.random.random() < 0.8:
            query = f"account={self.random.choice(self.accounts)}"
        if target.body is None:
            return Hostile(target.method, path, query, tuple(headers))
        headers.append(("Content-Type", "application/json"))
        if self.random.random() < 0.2:
            headers.append(("Idempotency-Key", f"key-{self.random.randrange(50)}"))
        body = self._body(target)
        return Hostile(target.method, path, query, tuple(headers), _dumps(body, self.random).encode())

    def _body(self, target: Target) -> Any:
        body: dict[str, Any] = copy.deepcopy(target.body or {})
        if "account" in target.fields and self.random.random() < 0.8:
            body["account"] = self.random.choice(self.accounts)
        for _ in range(self.random.choice([0, 1, 1, 2])):
            self._spoil(target, body)
        return body

    def _spoil(self, target: Target, body: dict[str, Any]) -> None:
        """Change a field, wherever it is."""
        place = self.random.random()
        records = body.get("records")
        if isinstance(records, list) and records and place < 0.6:
            at = self.random.randrange(len(records))
            records[at] = (
                _Text(_value(self.random)) if place < 0.2 or not isinstance(records[at], dict) else records[at]
            )
            if isinstance(records[at], dict):
                records[at][self.random.choice(["credits", "operation", "quantity"])] = _Text(_value(self.random))
        elif place < 0.75 and target.fields:
            body[self.random.choice(target.fields)] = _Text(_value(self.random))
        elif place < 0.85 and body:
            del body[self.random.choice(list(body))]
        elif place < 0.95:
            body[self.random.choice(STRINGS)[:300]] = _Text(_value(self.random))
        else:
            for name in target.fields:
                body[name] = _Text(_value(self.random))

    def _ways(self, target: Target) -> list[Any]:
        always = [self._path, self._query, self._headers, self._method]
        return (
            always
            if target.body is None
            else [self._bytes, self._bytes, self._whole, self._type, self._headers, *always]
        )

    def _path(self, made: Hostile) -> Hostile:
        odd = self.random.choice(STRINGS).encode("utf-8", "surrogatepass")[:3_000]
        part = self.random.choice([quote(odd, safe=""), "%00", "%ff%fe", "%zz", "..", "%2e%2e%2f", "//", ";a=b", "%25"])
        pieces = made.path.split("/")
        pieces[self.random.randrange(3, len(pieces))] = part
        return replace(made, path="/".join(pieces))

    def _query(self, made: Hostile) -> Hostile:
        names = [
            "account",
            "limit",
            "cursor",
            "from",
            "to",
            "state",
            "interval",
            "by",
            "month",
            "search",
            "operation",
            "x",
        ]
        name = self.random.choice(names)
        value = self.random.choice([*STRINGS, *NUMBERS, self._cursor()])
        text = self.random.choice(
            [
                f"{name}={quote(value.encode('utf-8', 'surrogatepass')[:3_000], safe='')}",
                f"{name}=%ff%00&{name}=1",
                f"{name}[]=1&{name}[a]=2",
                f"&&=&{name}",
                f"{name}=%zz%",
            ]
        )
        return replace(made, query=f"{made.query}&{text}" if self.random.random() < 0.7 else text)

    def _cursor(self) -> str:
        inside = self.random.choice(
            ["[1,2]", "[-1]", "[1e400]", '["\\u0000"]', "[2305843009213693952,1]", "{}", "[" * 500]
        )
        return base64.urlsafe_b64encode(inside.encode()).decode()

    def _headers(self, made: Hostile) -> Hostile:
        odd = self.random.choice(STRINGS).encode("utf-8", "replace").decode("latin-1")
        odd = "".join(char for char in odd if char not in "\r\n\x00")[:4_000]
        name = self.random.choice(HEADERS)
        value = self.random.choice(
            [odd, odd, "gzip", "*/*;q=NaN", "bytes=0-1,5-", "session=.e30.Zm9v", "key-1", "[::1"]
        )
        kept = [(kind, shown) for kind, shown in made.headers if kind != name]
        return replace(made, headers=(*kept, (name, value)))

    def _method(self, made: Hostile) -> Hostile:
        if self.random.random() < 0.7:
            return made
        return replace(
            made,
            method=self.random.choice(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "TRACE", "BREW"]),
        )

    def _type(self, made: Hostile) -> Hostile:
        kinds = [
            "text/plain",
            "",
            "application/json; charset=utf-16",
            "application/jsonx",
            "multipart/form-data",
            "\xff",
        ]
        kinds += ["application/x-www-form-urlencoded", "application/json, text/html", "APPLICATION/JSON"]
        kept = [(name, shown) for name, shown in made.headers if name != "Content-Type"]
        return replace(made, headers=(*kept, ("Content-Type", self.random.choice(kinds))))

    def _whole(self, made: Hostile) -> Hostile:
        return replace(made, data=_value(self.random).encode("utf-8", "surrogatepass"))

    def _bytes(self, made: Hostile) -> Hostile:
        """Something is wrong with the bytes themselves."""
        data = made.data or b""
        at = self.random.randrange(len(data) + 1)
        odd = self.random.choice(
            [b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\x00", b"\xf4\x90\x80\x80", b"\xe2\x80", b'"', b"}", b","]
        )
        way = self.random.randrange(7)
        if way == 0:
            data = data[:at]
        elif way == 1:
            data = data[:at] + odd + data[at:]
        elif way == 2:
            data = b"\xef\xbb\xbf" + data
        elif way == 3:
            data = data.decode("utf-8", "replace").encode(self.random.choice(["utf-16", "utf-32", "utf-7"]), "replace")
        elif way == 4:
            data = gzip.compress(data)
        elif way == 5:
            data += self.random.choice([data, b"\x00", b" " * 100_000, b"]", b"//"])
        else:
            data = data[: at // 2] + self.random.randbytes(20) + data[at:]
        return replace(made, data=data)
