"""Every error that llamaspec raises on purpose.

    LlamaspecError                 1   anything below
    ├── UsageError                 2   flags or values that make no sense, or contradict each other
    ├── ProfileError              10   a profile that is not valid
    │   └── ProfileNotFoundError  11   no profile of that name, path or address
    ├── ModelFetchError           20   a model that can't be had from any of its sources
    │   ├── ModelNotFoundError    21   the source answers, and has no such file
    │   ├── NetworkError          22   the source does not answer
    │   ├── HashMismatchError     23   the bytes are not the ones that were promised
    │   └── DiskFullError         24   no room for the file
    ├── ModelFileError            30   a local file that is not a usable model
    │   ├── FileMissingError      31   no such file
    │   ├── NotGGUFError          32   not a GGUF file
    │   ├── CorruptGGUFError      33   a GGUF file that is truncated, malformed or hostile
    │   └── UnsupportedModelError 34   a sound file that can't be run here (architecture, encoder, embedding)
    ├── PairMismatchError         40   main and draft do not share a vocabulary
    ├── OutOfMemoryError          50   not enough memory for weights, KV cache or compute buffers
    ├── ContextError              60   the prompt does not fit the context
    ├── GrammarError              61   a grammar or JSON schema that does not compile
    ├── TemplateError             62   a chat template that fails, loops or writes too much
    ├── DecodeError               70   llama.cpp could not evaluate a batch
    │   └── DecodeAborted         71   the abort callback asked to stop
    ├── DeviceError               72   a device that is not there, or that this build can't use
    ├── ClosedError               73   use of a model, context or engine after close()
    ├── QueueFullError            74   more requests than may wait
    ├── EngineFailedError         75   the engine has failed and answers no more requests
    └── ServerError               80   a server to be measured that can't be reached, ended, or answers badly

The number is the exit code of the command line. 130 is kept for Ctrl-C.
"""


class LlamaspecError(Exception):
    """One clear sentence in `message`, and in `hint` what to do about it."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(LlamaspecError):
    exit_code = 2


class ProfileError(LlamaspecError):
    exit_code = 10


class ProfileNotFoundError(ProfileError):
    exit_code = 11


class ModelFetchError(LlamaspecError):
    exit_code = 20


class ModelNotFoundError(ModelFetchError):
    exit_code = 21


class NetworkError(ModelFetchError):
    exit_code = 22


class HashMismatchError(ModelFetchError):
    exit_code = 23


class DiskFullError(ModelFetchError):
    exit_code = 24


class ModelFileError(LlamaspecError):
    exit_code = 30


class FileMissingError(ModelFileError):
    exit_code = 31


class NotGGUFError(ModelFileError):
    exit_code = 32


class CorruptGGUFError(ModelFileError):
    exit_code = 33


class UnsupportedModelError(ModelFileError):
    exit_code = 34


class PairMismatchError(LlamaspecError):
    exit_code = 40


class OutOfMemoryError(LlamaspecError):
    exit_code = 50


class ContextError(LlamaspecError):
    """Tells, where they are known, how many tokens the prompt has and the context holds."""

    exit_code = 60

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        prompt_tokens: int | None = None,
        context_size: int | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.prompt_tokens = prompt_tokens
        self.context_size = context_size


class GrammarError(LlamaspecError):
    exit_code = 61


class TemplateError(LlamaspecError):
    exit_code = 62


class DecodeError(LlamaspecError):
    exit_code = 70


class DecodeAborted(DecodeError):
    exit_code = 71


class DeviceError(LlamaspecError):
    exit_code = 72


class ClosedError(LlamaspecError):
    exit_code = 73


class QueueFullError(LlamaspecError):
    exit_code = 74


class EngineFailedError(LlamaspecError):
    exit_code = 75


class ServerError(LlamaspecError):
    exit_code = 80
