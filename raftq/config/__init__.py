"""Configuration: declared once in ``schema``, checked whole by ``rules``, read by ``sources``.

Units are part of the names, every key has a default, nothing changes after
``load``. ``Config.fingerprint`` covers what must be equal on every replica.
"""

from __future__ import annotations

from raftq.config.schema import (
    ApiConfig,
    AuthConfig,
    ClusterConfig,
    Config,
    EncryptionConfig,
    LogConfig,
    MemberConfig,
    NodeConfig,
    RaftConfig,
    StorageConfig,
    TlsConfig,
    split_address,
)
from raftq.config.sources import ConfigError, load
from raftq.config.toml import masked, render

__all__ = [
    "ApiConfig",
    "AuthConfig",
    "ClusterConfig",
    "Config",
    "ConfigError",
    "EncryptionConfig",
    "LogConfig",
    "MemberConfig",
    "NodeConfig",
    "RaftConfig",
    "StorageConfig",
    "TlsConfig",
    "load",
    "masked",
    "render",
    "split_address",
]
