"""`tfdlrm data trace`: profiles of streams of ids, and streams from profiles."""

from __future__ import annotations

import argparse
from typing import Any


def add_command(parts: Any) -> None:
    """Adds `trace` with its sub-commands `profile` and `generate`."""
    parser = parts.add_parser(
        "trace",
        help="profile a stream of ids, or generate one with the same profile",
        description="LRU stack distances of a stream of ids, and streams that have the same ones: what a cache of "
        "embedding rows sees, without the data. Files are .npy, .bin (8 bytes an id) or text with commas, blanks or "
        "new lines between ids; profiles are .npz or text.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    profile = commands.add_parser("profile", help="the profile of a stream of ids")
    profile.add_argument("ids", metavar="IDS_FILE", help="the ids, in the order of accesses")
    profile.add_argument("out", metavar="OUT", help="the profile to write")
    profile.add_argument("--line-size", type=int, default=1, metavar="N", help="ids that share a line; default: 1")
    _add_padding(profile, "count further first accesses, so that generated streams come to all ids sooner")
    profile.set_defaults(run=_profile, needs_tensorflow=False)
    generate = commands.add_parser("generate", help="a stream of ids from a profile")
    generate.add_argument("profile", metavar="PROFILE", help="what trace profile wrote")
    generate.add_argument("out", metavar="OUT", help="the ids to write")
    generate.add_argument("--ids", type=int, required=True, metavar="N", help="how many")
    generate.add_argument("--seed", type=int, default=0, metavar="S", help="of the draws; default: 0")
    generate.add_argument(
        "--method",
        choices=("lru", "rand"),
        default="lru",
        help="lru: stack distances follow the profile; rand: ids seen before keep their places; default: lru",
    )
    _add_padding(generate, "no new ids once as many were taken as the largest distance")
    generate.set_defaults(run=_generate, needs_tensorflow=False)


def _add_padding(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--padding", action="store_true", help=text)


def _profile(arguments: argparse.Namespace) -> None:
    from tfdlrm.data.trace import load_ids, profile_trace

    ids = load_ids(arguments.ids)
    profile = profile_trace(ids, line_size=arguments.line_size, padding=arguments.padding)
    profile.save(arguments.out)
    print(f"{len(ids):,} ids, {len(profile.lines):,} different, distances up to {profile.distances[-1]:,}")
    print(f"profile: {arguments.out}")


def _generate(arguments: argparse.Namespace) -> None:
    from tfdlrm.data.trace import TraceProfile, generate_lru, generate_rand, save_ids

    profile = TraceProfile.load(arguments.profile)
    generate = generate_lru if arguments.method == "lru" else generate_rand
    ids = generate(profile, arguments.ids, seed=arguments.seed, padding=arguments.padding)
    save_ids(arguments.out, ids)
    print(f"{len(ids):,} ids of {len(profile.lines):,}")
    print(f"ids: {arguments.out}")
