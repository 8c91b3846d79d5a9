"""The worker of every rival: a line of JSON in for each turn, lines of JSON out. Standard library only.

In: `{"text": …}`. Out: `{"delta": …}` any number of times, then `{"done": true}`. What the text may say:

- `stream N DELAY_MS`: N pieces
- `runs FILE SECONDS`: writes a line into FILE, so that one can count how often the turn was begun, and waits
- anything else comes back
"""

import json
import os
import sys
import time
from collections.abc import Iterator


def reply(text: str) -> Iterator[str]:
    first, *words = text.split() or [""]
    if first == "stream":
        for number in range(int(words[0])):
            time.sleep(float(words[1]) / 1e3)
            yield f"word{number} "
    elif first == "runs":
        with open(words[0], "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(float(words[1]))
        yield "waited"
    else:
        yield text


def main() -> None:
    for line in sys.stdin:
        text = json.loads(line)["text"]
        slow = text.startswith("stream ")
        for piece in reply(text):
            sys.stdout.write(json.dumps({"delta": piece}) + "\n")
            if slow:
                sys.stdout.flush()
        sys.stdout.write('{"done": true}\n')
        sys.stdout.flush()


if __name__ == "__main__":
    main()
