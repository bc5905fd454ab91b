# What a developer runs. Everything is `cargo xtask …`; this is the short way to say it.

export CARGO_TERM_COLOR := env("CARGO_TERM_COLOR", "always")

# list the recipes
default:
    @just --list

# serve the bundled data
run *ARGS:
    cargo run -p spiced -- {{ARGS}}

# unit tests and the conformance suite; installs what they need
test *ARGS:
    cargo xtask test {{ARGS}}

# fuzzed for longer, a thousand rotations under load, 10 GB through each endpoint, TPC-H at scale 1
soak:
    cargo xtask soak

# rewrite the tables of docs/clients.md from a run
clients-table:
    cargo xtask clients-table

# fmt, clippy, rustdoc, cargo-deny, edges between crates
check:
    cargo xtask check

# the edges between the crates alone
edges:
    cargo xtask edges

# each crate by itself, with each of its features
alone:
    cargo xtask alone

# the reference pages, from the code
docs:
    cargo xtask docs

# links between pages, and words that do not come back
docs-lint:
    cargo xtask docs-lint

# what it costs, beside nginx and a pyarrow Flight server (growth: how that grows); --write puts it into docs/
bench *ARGS:
    cargo xtask bench {{ARGS}}

# what the endpoints cost in instructions, held against guard/baseline.json; --write makes it the baseline
guard *ARGS:
    cargo xtask guard {{ARGS}}
