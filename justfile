# Commands for developers; each is short for a `cargo xtask …`.

export CARGO_TERM_COLOR := env("CARGO_TERM_COLOR", "always")

# list the recipes
default:
    @just --list

# serve the bundled data
run *ARGS:
    cargo run -p spiced -- {{ARGS}}

# unit tests and the conformance suite; installs their dependencies
test *ARGS:
    cargo xtask test {{ARGS}}

# longer fuzzing, a thousand rotations under load, 10 GB through each endpoint, TPC-H at scale 1
soak:
    cargo xtask soak

# rewrite the tables of docs/clients.md from a run
clients-table:
    cargo xtask clients-table

# fmt, clippy, rustdoc, cargo-deny, edges between crates
check:
    cargo xtask check

# only the edges between crates
edges:
    cargo xtask edges

# each crate on its own, with each of its features
alone:
    cargo xtask alone

# the reference pages, from the code
docs:
    cargo xtask docs

# links between pages, and words that must not return
docs-lint:
    cargo xtask docs-lint

# costs compared with nginx and a pyarrow Flight server (growth: how they grow); --write updates docs/
bench *ARGS:
    cargo xtask bench {{ARGS}}

# the endpoints' cost in instructions, compared with guard/baseline.json; --write updates the baseline
guard *ARGS:
    cargo xtask guard {{ARGS}}
