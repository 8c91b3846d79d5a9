"""What is done with files, on several stores at once: their pieces, sealing, discarding, expiry. Turns bind them."""

from __future__ import annotations

import hashlib

import attrs

from lobu_actors.contract.ids import ConversationRef
from lobu_actors.store import records as r
from tests.properties.twin_calls import ALL_EXAMPLES, MOST, TwinCalls, newest

LONG, OVER = 3600.0, -1.0
PIECES = 3


@attrs.define(slots=False)
class FileOperations(TwinCalls):
    files: list[tuple[ConversationRef, str]] = attrs.field(factory=list)

    def file_ids(self, ref: ConversationRef, number: int) -> tuple[str, ...]:
        """The newest of the organization's, so that some are another conversation's, bound, or not sealed."""
        known = [file_id for of, file_id in reversed(self.files) if of.organization_id == ref.organization_id]
        return tuple(dict.fromkeys(known))[:number]

    async def op_file(self, a: int, b: int, c: int) -> None:
        """One that is all there; b: of what direction and how long it lives."""
        await self.op_begin_file(a, b, c)
        await self.op_append_chunk(0, 0, c)
        await self.op_seal(0, 0, c)

    async def op_begin_file(self, a: int, b: int, c: int) -> None:
        ref = newest(self.conversations, a)
        file_id = self.fresh("f") if c < 3 or not self.files else self.files[-1][1]
        direction, lives = (r.Direction.IN, r.Direction.OUT)[b % 2], OVER if b == 3 else LONG
        await self.write("begin_file", r.NewFile(ref, file_id, direction, f"{file_id}.txt", "text/plain", lives))
        if (ref, file_id) not in self.files:
            self.files.append((ref, file_id))

    async def op_append_chunk(self, a: int, b: int, c: int) -> None:
        organization, file_id = self._file(a)
        await self.write("append_chunk", organization, file_id, b % PIECES, b"\x00\xff%d" % c)

    async def op_seal(self, a: int, b: int, c: int) -> None:
        organization, file_id = self._file(a)
        await self.write("seal_file", organization, file_id, size=3 + b, sha256=hashlib.sha256(b"%d" % c).hexdigest())

    async def op_discard_files(self, a: int, b: int, c: int) -> None:
        organization, file_id = self._file(a)
        await self.write("discard_files", organization, [file_id, *self.file_ids(newest(self.conversations, 0), b)])

    async def op_expire(self, a: int, b: int, c: int) -> None:
        await self.call("delete_expired_files", limit=a or ALL_EXAMPLES)

    def _file(self, a: int) -> tuple[str, str]:
        if not self.files:
            return self.organization, "no-such-file"
        ref, file_id = newest(self.files, a)
        return ref.organization_id, file_id

    async def compare_files(self) -> None:
        for ref in self.conversations:
            for limit in (MOST, 1):
                await self.call("list_files", ref, limit=limit)
            await self.call("find_input_files", ref, [turn.turn_id for turn in self.turns])
            for _, file_id in self.files:
                await self.call("find_file", ref, file_id)
        for ref, file_id in self.files:
            for number in range(PIECES):
                await self.call("read_chunk", ref.organization_id, file_id, number)
