"""Whether a run ended because another of its processes did."""

import os
import re
import sys

__all__ = ["leave_at_once", "lost_process"]

_TALK = re.compile(
    r"gloo/transport|NCCL error|Connection (closed|reset) by peer|Timed out waiting \d+ms"
)


def lost_process(error: BaseException) -> str | None:
    """Return one sentence for an error of the talk between processes, None for any other.

    Only the other process knows why it ended.
    """
    # Of torch.distributed, which a quick command has not imported.
    named = {kind.__name__ for kind in type(error).__mro__}
    if "DistError" not in named and not (
        isinstance(error, RuntimeError) and _TALK.search(str(error))
    ):
        return None
    hangs = "Timed out" in str(error) or "timeout" in str(error)
    what = "does not answer any more" if hangs else "has ended"
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return (
        f"another process of this run {what}: look for the reason in what that one said; then the "
        f"same command with --ckpt_path last goes on ({lines[0][:200]})"
    )


def leave_at_once() -> None:
    """End this process with 1 where processes talk to each other.

    Taking down their connection waits for the lost one, without an end.
    """
    torch = sys.modules.get("torch")
    if (
        torch is not None
        and torch.distributed.is_available()
        and torch.distributed.is_initialized()
    ):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
