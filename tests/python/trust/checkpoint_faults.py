#!/usr/bin/env python3
"""A save that is killed at each of its system calls, refused by the disk, or cut off by a power failure.

    FOVEA_BUILD=build/release .venv/bin/python tests/python/trust/checkpoint_faults.py [--kills N] [--states N] [--seed N] [--json FILE]

Steps 1 and 2 are there, step 3 is being saved, step 1 is then removed. After each fault the newest whole checkpoint must be 2
or 3 with the content of its step, and no temporary may be left after the next start. --kills, --states: at most so many; 0 all kills.
"""
import argparse
import collections
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import tempfile

PROBE = pathlib.Path(os.environ.get("FOVEA_BUILD", "build/release")).resolve() / "fovea_checkpoint_probe"


def memory_folder():
    return pathlib.Path(tempfile.mkdtemp(dir="/dev/shm" if pathlib.Path("/dev/shm").is_dir() else None))


def ask(*words, tracer=()):
    return subprocess.run([*map(str, tracer), PROBE, *map(str, words)], capture_output=True, text=True)


def problem_to_trace():
    """Why strace cannot be used here, or None."""
    if not shutil.which("strace"):
        return "strace is not installed"
    done = subprocess.run(["strace", "-o", "/dev/null", "-e", "inject=fsync:error=EIO:when=1", "true"], capture_output=True, text=True)
    return None if done.returncode == 0 else done.stderr.strip()[:200]


class Begun:
    """A folder with steps 1 and 2, copied anew for each fault."""

    def __init__(self):
        self.root = memory_folder()
        self.good, self.run = self.root / "good", self.root / "run"
        for step in (1, 2):
            assert ask("save", self.good, step).returncode == 0
        self.fresh()

    def fresh(self):
        shutil.rmtree(self.run, ignore_errors=True)
        shutil.copytree(self.good, self.run)

    def trace(self):
        """(name, how many of that name came before in the whole process, the line) of each system call of a save."""
        self.fresh()
        log = self.root / "strace.log"
        assert ask("save", self.run, 3, tracer=["strace", "-xx", "-s", "100000", "-o", log]).returncode == 0
        seen, calls, begun = collections.Counter(), [], False
        for line in log.read_text().splitlines():
            name = re.match(r"(\w+)\(", line)
            if not name:
                continue
            seen[name[1]] += 1
            if begun:
                calls.append((name[1], seen[name[1]], line))
            begun |= b"/save-begins" in unhexed(line)
        return calls

    def problem_after(self, least=2):
        """What the next start finds wrong, or None."""
        found = ask("load", self.run)
        if found.returncode != 0 or found.stdout.strip() not in [f"step {step}" for step in (2, 3) if step >= least]:
            return f"exit {found.returncode}: {found.stdout.strip()} {found.stderr.strip()}"
        left = [p.name for p in self.run.rglob(".*")]
        return f"left {left}" if left else None

    def close(self):
        shutil.rmtree(self.root)


def unhexed(text):
    return re.sub(rb"\\x([0-9a-f]{2})", lambda m: bytes([int(m[1], 16)]), text.encode())


def kill_at_every_call(begun, most=0, seed=1):
    """(kills, problems)."""
    calls = [call for call in begun.trace() if call[0] not in ("exit_group",)]
    if most and most < len(calls):
        calls = random.Random(seed).sample(calls, most)
    problems, kills = [], 0
    for name, ordinal, line in calls:
        begun.fresh()
        done = ask("save", begun.run, 3, tracer=["strace", "-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={ordinal}"])
        if done.returncode == 0:
            problems.append(f"{name} number {ordinal}: was not killed")
        kills += done.returncode != 0
        if (problem := begun.problem_after()):
            problems.append(f"killed at {name} number {ordinal}: {problem}")
    return kills, problems


def refuse_every_write(begun, most=0, seed=1):
    """Each call that changes the disk fails, once and for good: (faults, problems)."""
    problems, faults = [], 0
    calls = begun.trace()
    for name, ordinal, line in random.Random(seed).sample(calls, len(calls)):
        if most and faults >= most:
            break
        if name not in ("write", "fsync", "rename", "mkdir") and not (name == "openat" and "O_CREAT" in line):
            continue
        if name == "write" and line.startswith("write(1,"):
            continue
        for error in ("ENOSPC", "EIO", "EDQUOT"):
            for lasting in ("", "+"):
                if name == "write" and lasting:
                    continue  # would swallow the message
                begun.fresh()
                done = ask("save", begun.run, 3, tracer=["strace", "-o", "/dev/null", "-e", f"trace={name}", "-e", f"inject={name}:error={error}:when={ordinal}{lasting}"])
                faults += 1
                where = f"{error} at {name} number {ordinal}{lasting}"
                if done.returncode != 3 or len(done.stderr.splitlines()) != 1:
                    problems.append(f"{where}: exit {done.returncode}, {done.stderr.strip()}")
                if (problem := begun.problem_after()):
                    problems.append(f"{where}: {problem}")
    return faults, problems


# ---- Power failure: what a disk may hold when nothing but fsync orders its writes.

class Disk:
    """Files and folders by number; writes and names that no fsync has made lasting may be there, or not, or half."""

    def __init__(self, root):
        self.root, self.files, self.folders = root, {}, {}  # number -> [writes, how many are lasting]; number -> [changes of names, lasting]
        self.place, self.next = {}, 0  # path -> number

    def new(self, table):
        self.next += 1
        table[self.next] = [[], 0]
        return self.next

    def add_folder(self, path, lasting=True):
        number = self.place[path] = self.new(self.folders)
        if path != self.root:
            self.name(path, number, lasting)
        return number

    def name(self, path, number, lasting=False):
        parent = self.folders[self.place[path.parent]]
        parent[0].append((path.name, number))
        if lasting:
            parent[1] = len(parent[0])

    def after(self, calls, rng):
        """Applies calls, then gives one state that a power failure may leave: path -> bytes, None for a folder."""
        descriptors = {}
        for name, descriptor, paths, data, returned in calls:
            if name == "openat":
                if data:  # made by this call
                    self.place[paths[0]] = self.new(self.files)
                    self.name(paths[0], self.place[paths[0]])
                descriptors[returned] = self.place.get(paths[0])
            elif name == "mkdir":
                self.add_folder(paths[0], lasting=False)
            elif name == "write" and descriptors.get(descriptor) in self.files:
                self.files[descriptors[descriptor]][0].append(data)
            elif name == "fsync":
                number = descriptors[descriptor]
                record = self.files.get(number) or self.folders[number]
                record[1] = len(record[0])
            elif name == "rename":
                old, new = paths
                number = self.place.pop(old)
                for path in [p for p in self.place if p.is_relative_to(old)]:
                    self.place[new / path.relative_to(old)] = self.place.pop(path)
                self.place[new] = number
                parent = self.folders[self.place[new.parent]]
                parent[0].append(((old.name, new.name), number))  # one folder, both names at once
            elif name in ("unlinkat", "rmdir"):
                folder = descriptors[descriptor] if name == "unlinkat" else self.place[paths[0].parent]
                self.folders[folder][0].append((paths[0].name, None))
        return self.state(rng)

    def state(self, rng):
        found, keep = {}, rng.random()

        def content(writes, lasting):
            data = b"".join(writes[:lasting])
            for piece in writes[lasting:]:
                chance = rng.random()
                if chance < keep:
                    data += piece
                elif chance < keep + (1 - keep) / 2:
                    data += b"".join(piece[i:i + 512] if rng.random() < 0.5 else bytes(len(piece[i:i + 512])) for i in range(0, len(piece), 512))
            return data

        def fill(path, number):
            found[path] = None
            names = {}
            changes, lasting = self.folders[number]
            for i, (name, target) in enumerate(changes):
                if i >= lasting and rng.random() >= keep:
                    continue
                if isinstance(name, tuple):
                    names.pop(name[0], None)
                    names[name[1]] = target
                elif target is None:
                    names.pop(name, None)
                else:
                    names[name] = target
            for name, target in names.items():
                if target in self.folders:
                    fill(path / name, target)
                else:
                    found[path / name] = content(*self.files[target])

        fill(self.root, self.place[self.root])
        return found


def parsed(calls):
    """(name, descriptor, paths, bytes written or whether a file was made, what came back) of the calls that succeeded."""
    found = []
    for name, _, line in calls:
        returned = line.rsplit(" = ", 1)[-1].split()[0]
        if name not in ("openat", "mkdir", "write", "fsync", "rename", "unlinkat", "rmdir") or returned in ("-1", "?"):
            continue
        texts = [bytes.fromhex(text.replace("\\x", "")) for text in re.findall(r'"([^"]*)"', line)]
        descriptor = re.match(r"\w+\((\d+)", line)
        data = texts[0] if name == "write" else "O_CREAT" in line
        found.append((name, descriptor and int(descriptor[1]), [] if name == "write" else [pathlib.Path(os.fsdecode(t)) for t in texts], data, int(returned)))
    return found


def power_failures(begun, states, seed=1):
    """(different states, problems)."""
    calls = parsed(begun.trace())
    # From here on step 3 has been promised: its last name is lasting.
    promised = next(i for i, call in enumerate(calls) if call[0] == "rename" and call[2][1].name == "step-3") + 3
    problems, seen, rng = [], set(), random.Random(seed)
    for trial in range(20 * states):
        if len(seen) >= states:
            break
        cut = rng.randrange(len(calls) + 1)
        disk = Disk(begun.run)
        disk.add_folder(begun.run)
        for folder in sorted(begun.good.iterdir()):
            disk.add_folder(begun.run / folder.name)
            for file in sorted(folder.iterdir()):
                path = begun.run / folder.name / file.name
                disk.place[path] = number = disk.new(disk.files)
                disk.files[number] = [[file.read_bytes()], 1]
                disk.name(path, number, lasting=True)
        state = disk.after(calls[:cut], rng)
        key = hash(tuple(sorted((str(p), c) for p, c in state.items())))
        if key in seen:
            continue
        seen.add(key)
        shutil.rmtree(begun.run, ignore_errors=True)
        for path, data in state.items():
            path.mkdir() if data is None else path.write_bytes(data)
        if (problem := begun.problem_after(least=3 if cut >= promised else 2)):
            problems.append(f"state {trial} of seed {seed}, after {cut} of {len(calls)} calls: {problem}")
    return len(seen), problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("kills", 0), ("states", 1000), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    if (problem := problem_to_trace()):
        sys.exit(f"checkpoint_faults: {problem}")
    begun, rows = Begun(), {}
    try:
        for what, run in (("kills, one at each system call of a save", lambda: kill_at_every_call(begun, arguments.kills, arguments.seed)),
                            ("calls refused with ENOSPC, EIO, EDQUOT", lambda: refuse_every_write(begun, arguments.kills)),
                            ("states after a power failure", lambda: power_failures(begun, arguments.states, arguments.seed))):
            count, problems = run()
            print(f"{count:5} {what}, {len(problems)} bad", flush=True)
            print("\n".join(f"      {p}" for p in problems[:10]), end="\n" if problems else "")
            rows[what.split()[0].rstrip(",")] = {"count": count, "problems": problems}
    finally:
        begun.close()
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")
    return 1 if any(row["problems"] for row in rows.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
