"""Print the share of mutants that the tests kill, file by file, and the names of the others.

`make mutants` leaves one exit status of pytest for each mutant beside its file: 1 where a test
failed, 3 where one broke, 0 where all passed, and a signal's number where the time ran out.
"""

import json
from pathlib import Path

KILLED = {1, 3}
TIMED_OUT = {24, -24, 36, 152, 255}


def main() -> None:
    """Read every record in the folder of the run."""
    outcomes = {}
    for path in sorted(Path("mutants/vilogit").glob("*.meta")):
        outcomes[path.stem] = json.loads(path.read_text())["exit_code_by_key"]
    tested = {
        file: {name: status for name, status in each.items() if status is not None}
        for file, each in outcomes.items()
    }
    killed = KILLED | TIMED_OUT
    for each in tested.values():
        for name, status in each.items():
            if status not in killed:
                print(f"{'survived' if status == 0 else f'status {status}'}: {name}")
    print(f"{'file':<20}{'killed':>8}{'of':>6}{'score':>9}")
    everything = [status for each in tested.values() for status in each.values()]
    for file, each in [*((f, list(e.values())) for f, e in tested.items()), ("all", everything)]:
        if each:
            n = sum(status in killed for status in each)
            print(f"{file:<20}{n:>8}{len(each):>6}{n / len(each):>9.1%}")
    print(f"{sum(status in TIMED_OUT for status in everything)} of the killed ran out of time.")
    waiting = sum(map(len, outcomes.values())) - len(everything)
    if waiting:
        print(f"{waiting} mutants have not been run.")


if __name__ == "__main__":
    main()
