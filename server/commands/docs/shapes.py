"""JSON Schemas of what is taken and of what is told, as it really travels.

msgspec makes them of the types; what it can't know is put right here: the spelling of times, JSON that is kept
encoded, Python's anchors in patterns, and which fields are always there in what is told.
"""

import inspect
import re
import types
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

import msgspec

from storage import Time

Schema: TypeAlias = dict[str, Any]

REF = "#/components/schemas/"
INSTANT = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z$"

_TAKEN_TIME = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time"})]
_TOLD_TIME = Annotated[str, msgspec.Meta(extra_json_schema={"format": "date-time", "pattern": INSTANT})]
_ABSENT = (type(None), msgspec.UnsetType)
_GENERIC: Any = Annotated  # subscripted with what is known at run time only


class Shapes:
    """The named schemas of the types that are taken (payloads) and told (answers, pushes).

    `taken` and `told` map each type given to its schema, `named` is what these refer to. A type that is both has two
    schemas where they differ: what may be left out when it is sent may always be there when it is told. `reserved` are
    names that no schema gets.
    """

    def __init__(self, taken: Iterable[Any], told: Iterable[Any], *, reserved: Collection[str] = ()) -> None:
        taken_roots, told_roots = list(taken), list(told)
        taken_types, told_types = _reach(taken_roots), _reach(told_roots)
        names = _names({**told_types, **taken_types}, reserved)
        of_told = _named({one: names[one] for one in told_types}, names, told=True)
        of_taken = _named({one: names[one] for one in taken_types}, names, told=False)
        twins = _twins(of_taken, of_told)
        named = of_told | {twins.get(name, name): _renamed(schema, twins) for name, schema in of_taken.items()}
        self.named: dict[str, Schema] = dict(sorted(named.items()))
        self.told = dict(zip(told_roots, _schemas(told_roots, names, told=True), strict=True))
        found = _schemas(taken_roots, names, told=False)
        self.taken = {root: _renamed(schema, twins) for root, schema in zip(taken_roots, found, strict=True)}

    def resolved(self, schema: Schema) -> Schema:
        """The schema, or the named one that it refers to."""
        return self.named[schema["$ref"].removeprefix(REF)] if "$ref" in schema else schema


def _is_struct(one: Any) -> bool:
    kind = get_origin(one) or one
    return isinstance(kind, type) and issubclass(kind, msgspec.Struct)


def _is_enum(one: Any) -> bool:
    return isinstance(one, type) and issubclass(one, Enum)


def _reach(roots: Iterable[Any]) -> dict[Any, None]:
    """The structs and enumerations that these types hold, in the order in which they are met."""
    found: dict[Any, None] = {}

    def walk(annotation: Any) -> None:
        if annotation in found:
            return
        if _is_struct(annotation):
            found[annotation] = None
            for field in msgspec.structs.fields(annotation):
                walk(field.type)
        elif _is_enum(annotation):
            found[annotation] = None
        elif get_origin(annotation) is Annotated:
            walk(get_args(annotation)[0])
        elif get_origin(annotation) is not Literal:
            for argument in get_args(annotation):
                walk(argument)

    for root in roots:
        walk(root)
    return found


def _names(found: Iterable[Any], reserved: Collection[str]) -> dict[Any, str]:
    """A name for each: the class's; its module's too where two share one, or it is reserved."""
    found = list(found)
    short = {one: _identifier(getattr(one, "__name__", "") if not get_args(one) else str(one)) for one in found}
    taken = list(short.values())
    names = {}
    for one, name in short.items():
        if taken.count(name) > 1 or name in reserved:
            names[one] = _identifier(one.__module__.rpartition(".")[2].title()) + name
        else:
            names[one] = name
    if len(set(names.values())) < len(names):
        return {one: _identifier(f"{one.__module__}.{name}".title()) for one, name in short.items()}
    return names


def _identifier(text: str) -> str:
    return "".join(char for char in text if char.isalnum())


def _plain(annotation: Any, *, told: bool) -> Any:
    """The type in msgspec's words: times with their form, and what is kept encoded as what it stands for."""
    if annotation is Time:
        return _TOLD_TIME if told else _TAKEN_TIME
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _GENERIC[(_plain(arguments[0], told=told), *arguments[1:])]
    if origin in (Union, types.UnionType):
        said = [one for one in arguments if one is not msgspec.Raw and one not in _ABSENT]
        kept = [one for one in arguments if one is not msgspec.Raw] if said else arguments
        return Union[tuple(_plain(one, told=told) for one in kept)]  # noqa: UP007 (made at run time)
    if not arguments or origin is None or origin is Literal or _is_struct(annotation):
        return annotation
    return origin[tuple(one if one is ... else _plain(one, told=told) for one in arguments)]


def _schemas(annotations: Sequence[Any], names: Mapping[Any, str], *, told: bool) -> list[Schema]:
    """The schemas of types; in them named types are referred to by these names."""
    plain = [_plain(annotation, told=told) for annotation in annotations]
    made, _ = msgspec.json.schema_components([*names, *plain], ref_template=REF + "{name}")
    ours = {schema["$ref"]: REF + name for name, schema in zip(names.values(), made, strict=False)}
    return [_tidy(schema, ours) for schema in made[len(names) :]]


def _tidy(schema: Any, refs: Mapping[str, str]) -> Any:
    """A schema with other references, and patterns as every other language writes them."""
    if isinstance(schema, list):
        return [_tidy(one, refs) for one in schema]
    if not isinstance(schema, dict):
        return schema
    tidy = {key: _tidy(value, refs) for key, value in schema.items()}
    if isinstance(tidy.get("$ref"), str):
        tidy["$ref"] = refs.get(tidy["$ref"], tidy["$ref"])
    if isinstance(tidy.get("pattern"), str):
        tidy["pattern"] = _portable(tidy["pattern"])
    return tidy


def _portable(pattern: str) -> str:
    """A pattern of Python's as ECMA-262 has it, which JSON Schema asks for: its anchors; no flags in the middle."""
    pattern = pattern.replace(r"\A", "^").replace(r"\Z", "$")
    return re.sub(r"\(\?i:([^()\[\]]*)\)", lambda found: f"(?:{_in_any_case(found[1])})", pattern)


def _in_any_case(text: str) -> str:
    return re.sub(
        r"\\.|[A-Za-z]", lambda one: one[0] if len(one[0]) > 1 else f"[{one[0].lower()}{one[0].upper()}]", text
    )


def _renamed(schema: Schema, twins: Mapping[str, str]) -> Schema:
    tidy: Schema = _tidy(schema, {REF + name: REF + twin for name, twin in twins.items()})
    return tidy


def _named(chosen: Mapping[Any, str], names: Mapping[Any, str], *, told: bool) -> dict[str, Schema]:
    """The named schemas of the chosen types."""
    fields = [(one, field) for one in chosen if _is_struct(one) for field in msgspec.structs.fields(one)]
    schemas = _schemas([field.type for _, field in fields], names, told=told)
    of_field = {(one, field.name): schema for (one, field), schema in zip(fields, schemas, strict=True)}
    made = {}
    for one, name in chosen.items():
        schema = _enum(one) if _is_enum(one) else _object(one, of_field, told=told)
        doc = inspect.cleandoc(getattr(get_origin(one) or one, "__doc__", None) or "")
        made[name] = {"description": " ".join(doc.split()), **schema} if doc else schema
    return made


def _enum(one: type[Enum]) -> Schema:
    values = [member.value for member in one]
    return {"type": "string", "enum": values} if all(isinstance(value, str) for value in values) else {"enum": values}


def _object(one: Any, of_field: Mapping[tuple[Any, str], Schema], *, told: bool) -> Schema:
    config = (get_origin(one) or one).__struct_config__
    properties: dict[str, Schema] = {}
    required: list[str] = []
    if config.tag is not None:
        properties[config.tag_field] = {"const": config.tag}
        required.append(config.tag_field)
    for field in msgspec.structs.fields(one):
        may_be_absent = msgspec.UnsetType in get_args(field.type) or (config.omit_defaults and not field.required)
        schema = of_field[one, field.name]
        if not may_be_absent if told else field.required:
            required.append(field.encode_name)
        else:
            schema = _with_default(schema, field)
        properties[field.encode_name] = schema
    made: Schema = {"type": "object", "properties": properties}
    if required:
        made["required"] = required
    if config.forbid_unknown_fields and not told:
        made["additionalProperties"] = False
    return made


def _with_default(schema: Schema, field: msgspec.structs.FieldInfo) -> Schema:
    if field.default_factory in (list, dict, set, tuple):
        default: Any = field.default_factory()
    elif field.default is msgspec.NODEFAULT or field.default is msgspec.UNSET:
        return schema
    else:
        default = field.default
    alone = {"anyOf": [schema]} if "$ref" in schema else schema  # nothing may stand beside a reference
    return {**alone, "default": msgspec.json.decode(msgspec.json.encode(default))}


def _twins(taken: Mapping[str, Schema], told: Mapping[str, Schema]) -> dict[str, str]:
    """The types that need a second name: what is taken differs from what is told, in itself or in what it holds."""
    both = taken.keys() & told.keys()
    two = {name for name in both if taken[name] != told[name]}
    while more := {name for name in both - two if _references(taken[name]) & two}:
        two |= more
    return {name: name + "Input" for name in sorted(two)}


def _references(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(_references, schema)) if schema else set()
    if not isinstance(schema, dict):
        return set()
    own = {schema["$ref"].removeprefix(REF)} if isinstance(schema.get("$ref"), str) else set()
    return own.union(*map(_references, schema.values()))
