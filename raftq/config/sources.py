"""Where a configuration comes from: defaults < file < environment < ``--set``.

Every key can be set from each source: ``zone`` in ``[node]`` of the file,
``RAFTQ_NODE__ZONE=b`` in the environment, ``--set node.zone=b`` on the command
line. A value that is not a plain string is written as in TOML or as in JSON.
Relative paths are relative to the file's directory, whatever the source.
"""

from __future__ import annotations

import difflib
import json
import os
import stat
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, TypeGuard, TypeVar, get_args, get_origin

import msgspec

from raftq.config import rules
from raftq.config.rules import Problem
from raftq.config.schema import Config, MemberConfig, TlsConfig

ENVIRONMENT_PREFIX = "RAFTQ_"
SECTIONS: dict[str, type[msgspec.Struct]] = {
    field.name: field.type for field in msgspec.structs.fields(Config)
}

StructT = TypeVar("StructT", bound=msgspec.Struct)


class ConfigError(ValueError):
    """The operator must change something; ``problems`` lists everything that is wrong."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class _Setting(NamedTuple):
    key: str  # "section.key"
    value: object
    origin: str


def load(
    path: Path | None, environ: Mapping[str, str] | None = None, sets: Iterable[str] = ()
) -> Config:
    """The checked configuration with everything derived filled in; ConfigError lists all faults.

    ``path`` None means defaults, environment and ``sets`` alone.
    """
    found: list[Problem] = []
    settings: dict[str, _Setting] = {}
    for setting in (
        *_from_file(path, found),
        *_from_environment(environ or {}, found),
        *_from_sets(sets, found),
    ):
        settings[setting.key] = setting
    tree: dict[str, dict[str, object]] = {section: {} for section in SECTIONS}
    for setting in settings.values():
        section, _, key = setting.key.partition(".")
        tree[section][key] = setting.value
    config = _struct(Config, tree, "", found)
    broken = {problem.keys[0] for problem in found}
    found += [p for p in rules.problems(config) if not _mentions(p.keys, broken)]
    directory = path.parent if path else Path()
    config = _with_secrets(config, directory, found)
    config = _with_certificates(config, directory, found)
    if found:
        raise ConfigError(_told(problem, settings, path) for problem in found)
    return _derived(config, directory)


def _told(problem: Problem, settings: Mapping[str, _Setting], path: Path | None) -> str:
    key = problem.keys[0]
    setting = settings.get(key.partition("[")[0])
    origin = problem.origin or (setting.origin if setting else str(path) if path else "")
    where = f" ({origin})" if origin and origin not in key and key not in origin else ""
    return f"{key}: {problem.reason}{where}"


def _mentions(keys: tuple[str, ...], broken: set[str]) -> bool:
    return any(bad == key or bad.startswith(f"{key}[") for key in keys for bad in broken)


def _from_file(path: Path | None, found: list[Problem]) -> Iterator[_Setting]:
    if path is None:
        return
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError([f"{path}: no such file"]) from None
    except OSError as error:
        raise ConfigError([f"{path}: {error.strerror}"]) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError([f"{path}: not TOML: {error}"]) from error
    for section, keys in document.items():
        if section not in SECTIONS:
            found.append(_unknown(section, SECTIONS, "section", str(path)))
        elif not isinstance(keys, dict):
            found.append(Problem((section,), "must be a table"))
        else:
            yield from _known(section, keys, str(path), found)


def _from_environment(environ: Mapping[str, str], found: list[Problem]) -> Iterator[_Setting]:
    for variable, text in environ.items():
        name = variable.removeprefix(ENVIRONMENT_PREFIX)
        if name == variable or "__" not in name:
            continue
        section, _, key = name.lower().partition("__")
        yield from _from_text(section, key, text, variable, found)


def _from_sets(sets: Iterable[str], found: list[Problem]) -> Iterator[_Setting]:
    for text in sets:
        name, equals, value = text.partition("=")
        section, dot, key = name.strip().partition(".")
        if not equals or not dot:
            found.append(Problem((f"--set {name}",), "write it as section.key=value", "--set"))
            continue
        yield from _from_text(section, key, value, f"--set {name}", found)


def _from_text(
    section: str, key: str, text: str, origin: str, found: list[Problem]
) -> Iterator[_Setting]:
    if section not in SECTIONS:
        found.append(_unknown(section, SECTIONS, "section", origin))
        return
    # Strings are taken as they are, so that nobody has to quote twice.
    is_string = isinstance(getattr(SECTIONS[section](), key, ""), str)
    value = text if is_string else _parsed(text)
    yield from _known(section, {key: value}, origin, found)


def _known(
    section: str, keys: Mapping[str, object], origin: str, found: list[Problem]
) -> Iterator[_Setting]:
    known = [f"{section}.{key}" for key in SECTIONS[section].__struct_fields__]
    for name, value in keys.items():
        key = f"{section}.{name}"
        if key in known:
            yield _Setting(key, value, origin)
        else:
            found.append(_unknown(key, known, "key", origin))


def _unknown(key: str, known: Iterable[str], what: str, origin: str = "") -> Problem:
    near = difflib.get_close_matches(key, list(known), n=1)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return Problem((key,), f"there is no such {what}{hint}", origin)


def _parsed(text: str) -> object:
    """The TOML or JSON value; text that is neither stays text, and its type is refused later."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        pass
    try:
        return json.loads(text)
    except ValueError:
        return text


def _struct(
    kind: type[StructT], values: Mapping[str, object], prefix: str, found: list[Problem]
) -> StructT:
    """Field by field, so that one wrong value does not hide another."""
    fields = {}
    for field in msgspec.structs.fields(kind):
        key = f"{prefix}{field.name}"
        if field.name in values:
            default = None if field.required else _default(field)
            fields[field.name] = _value(field.type, values[field.name], key, default, found)
        elif field.required:
            found.append(Problem((key,), "is missing"))
            fields[field.name] = ""
    return kind(**fields)


def _value(hint: object, value: object, key: str, default: object, found: list[Problem]) -> object:
    """The converted value, or a stand-in of the right type and a problem."""
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        assert isinstance(value, Mapping)
        return _struct(hint, value, f"{key}.", found)
    if key == "cluster.members" and _is_tables(value):
        return tuple(_member(item, f"{key}[{n}].", found) for n, item in enumerate(value))
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError as error:
        found.append(Problem((key,), _reason(hint, value, str(error))))
        return "" if default is None else default


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()


def _is_tables(value: object) -> TypeGuard[list[dict[str, object]]]:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _member(item: dict[str, object], prefix: str, found: list[Problem]) -> MemberConfig:
    known = MemberConfig.__struct_fields__
    for key in item.keys() - set(known):
        found.append(_unknown(f"{prefix}{key}", [prefix + name for name in known], "key"))
    return _struct(MemberConfig, item, prefix, found)


def _reason(hint: object, value: object, text: str) -> str:
    """What msgspec says, in words for somebody who has not read ``schema``."""
    if get_origin(hint) is Literal:
        return f"{json.dumps(value, default=str)} is none of {', '.join(get_args(hint))}"
    if "regex" in text:
        return f"{json.dumps(value)} is no name: up to 64 of A-Z a-z 0-9 _ . - without a dot first"
    return text[:1].lower() + text[1:]


def _with_secrets(config: Config, directory: Path, found: list[Problem]) -> Config:
    """Secrets out of their files, which nobody else may be able to read."""
    cluster, auth = config.cluster, config.auth
    make = "openssl rand -hex 32"
    secret = cluster.secret or _secret(
        directory, "cluster.secret_file", cluster.secret_file, make, found
    )
    pepper = auth.hash_secret or _secret(
        directory, "auth.hash_secret_file", auth.hash_secret_file, make, found
    )
    key = auth.bootstrap_key or _secret(
        directory, "auth.bootstrap_key_file", auth.bootstrap_key_file, "raftq key generate", found
    )
    keys = config.encryption.keys or _secret(
        directory,
        "encryption.key_file",
        config.encryption.key_file,
        "raftq encryption master-key k1",
        found,
    )
    encryption = msgspec.structs.replace(config.encryption, keys=keys)
    auth = msgspec.structs.replace(auth, hash_secret=pepper, bootstrap_key=key)
    cluster = msgspec.structs.replace(cluster, secret=secret)
    if not config.auth.bootstrap_key:
        found += rules.bootstrap_key(auth, "auth.bootstrap_key_file")
    if not config.encryption.keys:
        found += rules.master_keys(encryption, "encryption.key_file")
    return msgspec.structs.replace(config, cluster=cluster, auth=auth, encryption=encryption)


def _secret(directory: Path, key: str, file: str, make: str, found: list[Problem]) -> str:
    """What the file holds; empty if none is named, or it can not be read."""
    if not file:
        return ""
    path = directory / file
    try:
        status = path.stat()
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        hint = f"; to make one: (umask 077; {make} > {path})"
        found.append(Problem((key,), f"{path}: {reason}{hint}"))
        return ""
    found += _shared(key, path, status)
    if len(secret.encode()) < rules.SECRET_BYTES_MIN:
        found.append(Problem((key,), f"{path} holds less than {rules.SECRET_BYTES_MIN} bytes"))
    return secret


def _shared(key: str, path: Path, status: os.stat_result) -> Iterator[Problem]:
    # Root may share it with a group: that is how service managers hand out credentials.
    if status.st_mode & (0o037 if status.st_uid == 0 else 0o077):
        mode = stat.S_IMODE(status.st_mode)
        reason = f"{path} has mode {mode:04o}, so that others can get at it; chmod 600 it"
        yield Problem((key,), reason)


def _with_certificates(config: Config, directory: Path, found: list[Problem]) -> Config:
    """Their paths made absolute: the files are read again while the node runs."""
    changed = {}
    for name in TlsConfig.__struct_fields__:
        value = getattr(config.tls, name)
        if not name.endswith("_file") or not value:
            continue
        path = directory / value
        changed[name] = os.path.abspath(path)
        key = f"tls.{name}"
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
        except OSError as error:
            found.append(Problem((key,), f"{path}: {error.strerror}"))
            continue
        if name.endswith("_key_file"):
            found += _shared(key, path, status)
    return msgspec.structs.replace(config, tls=msgspec.structs.replace(config.tls, **changed))


def _derived(config: Config, directory: Path) -> Config:
    """Everything that may be left out, filled in: readers need no rules of their own."""
    node, cluster = config.node, config.cluster
    listed = {member.name: member for member in cluster.members}.get(node.name)
    zone = node.zone or (listed.zone if listed else "default")
    scheme = "https" if config.tls.api_cert_file else "http"
    api_url = node.api_url or (listed.api_url if listed else f"{scheme}://{node.api_listen}")
    data_dir = os.path.abspath(directory / node.data_dir)
    node = msgspec.structs.replace(node, zone=zone, api_url=api_url, data_dir=data_dir)
    if not cluster.members:
        me = MemberConfig(name=node.name, zone=zone, peer=node.peer_listen, api_url=api_url)
        cluster = msgspec.structs.replace(cluster, members=(me,))
    return msgspec.structs.replace(config, node=node, cluster=cluster)
