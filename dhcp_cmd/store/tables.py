"""The tables as SQLAlchemy sees them. What they mean and every constraint is in schema/<engine>/*.sql, which makes
them; a test compares the two.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Column, Dialect, Integer, MetaData, SmallInteger, Table, Text

from dhcp_cmd.store.types import Address, Bytes, Time

metadata = MetaData()

WRITTEN = ("endpoint_text", "relay_address_text", "prefix_text", "router_link_local_text")
"""Columns with what a person reads beside an address. Where the engine's own type prints itself there are none."""


def columns(table: Table) -> list[Column[Any]]:
    """The columns that every engine has, in order."""
    return [column for column in table.columns if column.name not in WRITTEN]


def has_written(dialect: Dialect) -> bool:
    """Whether the engine has the columns WRITTEN."""
    return dialect.name == "sqlite"


domain = Table(
    "domain",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", BigInteger),
    Column("hash_key", Bytes),
)

maar = Table(
    "maar",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("name", Text),
    Column("relay_id", Bytes),
    Column("endpoint", Address),
    Column("endpoint_text", Text),
    Column("relay_address", Address),
    Column("relay_address_text", Text),
    Column("state", Text),
    Column("removed_at", Time),
    Column("router_link_local", Address),
    Column("router_link_local_text", Text),
    Column("router_link_layer", Bytes),
)

link = Table(
    "link",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("maar_id", BigInteger),
    Column("prefix", Address),
    Column("prefix_length", SmallInteger),
    Column("prefix_text", Text),
)

pool = Table(
    "pool",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("maar_id", BigInteger),
    Column("kind", Text),
    Column("prefix", Address),
    Column("prefix_length", SmallInteger),
    Column("prefix_text", Text),
    Column("unit_length", SmallInteger),
    Column("preferred", BigInteger),
    Column("valid", BigInteger),
    Column("reclaimed", BigInteger),
    Column("removed_at", Time),
)

mobile_node = Table(
    "mobile_node",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("serving_id", BigInteger),
    Column("previous_id", BigInteger),
    Column("generation", BigInteger),
    Column("visit_since", Time),
    Column("flaps", Integer),
    Column("link_layer", Bytes),
    Column("heard", Bytes),
    Column("heard_before", Bytes),
    Column("conflict_at", Time),
    Column("idle", SmallInteger),
    Column("merged_into_id", BigInteger),
    Column("registered", BigInteger),
)

node_identity = Table(
    "node_identity",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("node_id", BigInteger),
    Column("subtype", SmallInteger),
    Column("value", Bytes),
    Column("text", Text),
    Column("retired", BigInteger),
)

binding = Table(
    "binding",
    metadata,
    Column("prefix", Address, primary_key=True),
    Column("prefix_length", SmallInteger),
    Column("prefix_text", Text),
    Column("kind", Text),
    Column("node_id", BigInteger),
    Column("iaid", BigInteger),
    Column("anchor_id", BigInteger),
    Column("pool_id", BigInteger),
    Column("state", Text),
    Column("assigned_at", Time),
    Column("preferred_until", Time),
    Column("valid_until", Time),
    Column("hold_until", Time),
    Column("ended_at", Time),
    Column("reusable_at", Time),
    Column("autoconf", SmallInteger),
)

signal = Table(
    "signal",
    metadata,
    Column("node_id", BigInteger, primary_key=True, autoincrement=False),
    Column("maar_id", BigInteger, primary_key=True, autoincrement=False),
    Column("serial", BigInteger),
    Column("visit", SmallInteger),
    Column("put_at", Time),
    Column("owner", Text),
    Column("claimed_until", Time),
)

node_link = Table(
    "node_link",
    metadata,
    Column("first", Text, primary_key=True),
    Column("second", Text, primary_key=True),
    Column("made_at", Time),
)

node_link_event = Table(
    "node_link_event",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("at", Time),
    Column("event", Text),
    Column("first", Text),
    Column("second", Text),
)

replay_mark = Table(
    "replay_mark",
    metadata,
    Column("owner", Text, primary_key=True),
    Column("peer", Text, primary_key=True),
    Column("accepted_until", Time),
)

history = Table(
    "history",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("at", Time),
    Column("recorded_at", Time),
    Column("type", Text),
    Column("node_id", BigInteger),
    Column("cause", Text),
    Column("prefix", Address),
    Column("prefix_length", SmallInteger),
    Column("prefix_text", Text),
    Column("kind", Text),
    Column("iaid", BigInteger),
    Column("anchor_id", BigInteger),
    Column("from_maar_id", BigInteger),
    Column("to_maar_id", BigInteger),
    Column("generation", BigInteger),
    Column("transaction_id", Bytes),
    Column("detail", Text),
)

prune = Table(
    "prune",
    metadata,
    Column("id", BigInteger, primary_key=True),
    Column("before", Time),
    Column("started_at", Time),
    Column("finished_at", Time),
    Column("events", BigInteger),
    Column("nodes", BigInteger),
)
