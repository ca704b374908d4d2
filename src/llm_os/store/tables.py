"""The tables. Each row is a record as JSON beside the few columns that are searched or guarded."""

from __future__ import annotations

from sqlalchemy import JSON, Boolean, Column, Float, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

meta = Table("meta", metadata, Column("name", String, primary_key=True), Column("value", JSON, nullable=False))

leases = Table(
    "leases",
    metadata,
    Column("name", String, primary_key=True),
    Column("token", Integer, nullable=False),
    Column("holder", String, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", String, primary_key=True),
    Column("closed", Boolean, nullable=False, index=True),
    Column("expires_at", Float, nullable=False),
    Column("record", JSON, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String, primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("state", String, nullable=False, index=True),
    Column("session", String),
    Column("not_before", Float),
    Column("resources", JSON, nullable=False),
    Column("cache_key", String),
    Column("record", JSON, nullable=False),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner_kind", String, nullable=False),
    Column("owner", String, nullable=False, index=True),
    Column("session", String),
    Column("state", String, nullable=False, index=True),
    Column("token", Integer, nullable=False),
    Column("handle", JSON),
    Column("record", JSON, nullable=False),
)

deployments = Table(
    "deployments",
    metadata,
    Column("id", String, primary_key=True),
    Column("number", Integer, nullable=False, unique=True),
    Column("name", String, nullable=False, index=True),
    Column("state", String, nullable=False, index=True),
    Column("session", String),
    Column("private", Boolean, nullable=False),
    Column("not_before", Float),
    Column("failures", Integer, nullable=False),
    Column("resources", JSON, nullable=False),
    Column("record", JSON, nullable=False),
)

models = Table(
    "models",
    metadata,
    Column("card", String, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("manifest", String, nullable=False, index=True),
    Column("record", JSON, nullable=False),
)

aliases = Table(
    "aliases",
    metadata,
    Column("card", String, primary_key=True),
    Column("name", String, primary_key=True),
    Column("number", Integer, nullable=False),
)

results = Table(
    "results",
    metadata,
    Column("key", String, primary_key=True),
    Column("job", String, nullable=False),
    Column("result", JSON, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("id", String, primary_key=True),
    Column("owner", String, nullable=False, index=True),
    Column("record", JSON, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("kind", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("message", Text, nullable=False),
    Column("data", JSON, nullable=False),
)
Index("events_by_subject", events.c.subject, events.c.seq)
