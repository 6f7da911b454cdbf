"""The errors that deepscan raises on purpose.

    DeepscanError                 base; `exit_code` is what the command line returns
    ├── InputError                concerns a single video: it becomes that video's row, the run goes on
    │   ├── UnreadableInput       status `unreadable`: empty, damaged
    │   │   └── UnreachableInput  the same status: missing, not permitted, or reading it failed
    │   ├── UnsupportedInput      status `unsupported`: readable, but not a video that can be decoded
    │   └── OverLimit             status `over_limit`: larger, longer or more crowded than is allowed
    ├── UsageError                an argument or option is invalid                          exit code 2
    ├── OutputError               results cannot be written                                 exit code 3
    ├── ModelError                a detector file is missing, damaged or of another kind     exit code 3
    │   └── ParityMiss            an export differs too much from its original; in export/, as it carries the report
    └── MachineError              a device, a package or a library is missing or fails       exit code 3
        └── DeviceMemoryError     a device has no memory left: less at once may fit

Every message is one sentence that says what happened, to which file, and what to do now. Options of a scan are written
as on the command line, and become the keywords of `deepscan.scan` for programs: see `deepscan.naming`.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from deepscan.naming import in_callers_words

InputStatus = Literal["unreadable", "unsupported", "over_limit"]


class DeepscanError(Exception):
    """Base of all errors that deepscan raises on purpose."""

    exit_code: ClassVar[int] = 3

    def __init__(self, message: str = "") -> None:
        super().__init__(in_callers_words(message))


class InputError(DeepscanError):
    """One input cannot be scanned; its row gets `status` and the message as `reason`."""

    status: ClassVar[InputStatus]
    exit_code = 1

    def __init__(self, message: str = "") -> None:
        Exception.__init__(self, message)  # the row's reason: options are renamed where the result is returned


class UnreadableInput(InputError):
    """The input is empty or damaged, or an `UnreachableInput`."""

    status = "unreadable"


class UnreachableInput(UnreadableInput):
    """The input is missing, may not be read, or reading it failed: its content is unknown, and a retry may succeed."""


class UnsupportedInput(InputError):
    """The input can be read but holds no video that can be decoded."""

    status = "unsupported"


class OverLimit(InputError):
    """The input exceeds a limit; the message has the number, and the option that allows more."""

    status = "over_limit"


class UsageError(DeepscanError):
    """An argument or option is invalid, or contradicts another."""

    exit_code = 2


class OutputError(DeepscanError):
    """Results cannot be written where they were asked for."""


class ModelError(DeepscanError):
    """A detector's file is missing, damaged, or not what it should be."""


class MachineError(DeepscanError):
    """This machine lacks a device, a package or a library that was asked for."""


class DeviceMemoryError(MachineError):
    """A device has no memory left."""
