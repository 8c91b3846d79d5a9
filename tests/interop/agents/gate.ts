// An extension of pi that asks before every command in a shell, as people's own do.

import type { ExtensionAPI } from "@earendil-works/pi-coding-agent";

export default function (pi: ExtensionAPI) {
  pi.on("tool_call", async (event, ctx) => {
    if (event.toolName !== "bash") return undefined;
    const agreed = await ctx.ui.confirm("Run this command?", String(event.input.command));
    return agreed ? undefined : { block: true, reason: "The user said no." };
  });
}
