"""Local GGUF models through llama.cpp's low-level functions: many branches of text in one context.

`llama_cpp.Llama` decodes one sequence at a time. Here all branches share one pool of key/value cells, forking is a
matter of metadata, and one batched call advances any number of branches. No other module imports `llama_cpp`.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import signal
import threading
import weakref
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from correction_graphs.backends.base import Logits, Run
from correction_graphs.backends.cached import CachedBackend
from correction_graphs.backends.chat_prompts import any_of, prompt_tokens
from correction_graphs.backends.trial import try_model_file
from correction_graphs.errors import BackendError, MissingExtraError, ModelFileError, SettingsError

try:
    import llama_cpp.llama_cpp as lib

    from correction_graphs.backends.jinja_templates import Render, jinja_renderer  # llama-cpp-python brings Jinja
except ImportError as error:
    raise MissingExtraError("running local GGUF models", extra="llama") from error

_DEFAULT_CONTEXT = 8192
_MARGIN = 64  # cells beyond a full-length branch: room to compute last tokens again
_MIN_SEQUENCES = 2  # one to keep, one to compute a last token again
_MAX_SEQUENCES = 256  # llama.cpp's own limit
_MAX_CONTEXT = 2**30  # far beyond any model, and llama.cpp counts in 32 bits

# For models that bring no chat template.
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class ModelTokens:
    """The tokens of a loaded model, and its chat template. All methods may be called from any thread.

    Args:
        path: The model's file.
        model: The model, as llama.cpp gave it; it is freed with this.
    """

    def __init__(self, path: Path, model: Any) -> None:
        self.path = path
        self._model = model
        self._vocab = lib.llama_model_get_vocab(model)
        self._n_vocab: int = lib.llama_vocab_n_tokens(self._vocab)
        self._lock = threading.RLock()  # so that nothing is asked of a model that is being freed
        self._pieces: dict[int, bytes] = {}
        self._free_once = weakref.finalize(self, lib.llama_model_free, model)

    @property
    def n_vocab(self) -> int:
        """Number of tokens in the vocabulary."""
        return self._n_vocab

    @property
    def name(self) -> str:
        """The model's own name, or that of its file."""
        with self._lock:
            self._must_be_open()
            return self._metadata("general.name") or self.path.stem

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Turn text into tokens, without adding any; control tokens are recognized in it only if `special`."""
        data = text.encode("utf-8", errors="replace")
        with self._lock:
            self._must_be_open()
            room = len(data) + 8
            while True:
                tokens = (lib.llama_token * room)()
                count = lib.llama_tokenize(self._vocab, data, len(data), tokens, room, False, special)  # noqa: FBT003
                if count >= 0:
                    return list(tokens[:count])
                room = -count

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes a token stands for, b"" for control tokens."""
        with self._lock:
            self._must_be_open()
            if token not in self._pieces:
                self._pieces[token] = self._piece(token)
            return self._pieces[token]

    def token_text(self, token: int) -> str:
        """Return a token as it stands in the file; that is how a control token is spelled, such as `<|im_end|>`."""
        with self._lock:
            self._must_be_open()
            self._must_be_known(token)
            return self._spelling(token)

    def is_end(self, token: int) -> bool:
        """Tell whether the model ends its text, or its turn, with this token."""
        with self._lock:
            self._must_be_open()
            return bool(lib.llama_vocab_is_eog(self._vocab, token))

    def chat_tokens(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Turn chat messages into the prompt for the next assistant turn, by the model's own chat template.

        The spelling of a control token in a message's content, such as `<|im_end|>`, stays plain text: content cannot
        end its own turn or forge another.

        Args:
            messages: Dicts with `role` ("system", "user", "assistant") and `content`.

        Raises:
            SettingsError: If the template refuses this order of roles.
            ModelFileError: If the template itself is broken.
        """
        with self._lock:
            self._must_be_open()
            tokens = prompt_tokens(
                messages, render=self._template, tokenize=self.tokenize, control=self._control_spellings
            )
            bos = lib.llama_vocab_bos(self._vocab)
            if lib.llama_vocab_get_add_bos(self._vocab) and tokens[:1] != [bos]:
                tokens.insert(0, bos)
            return tokens

    def close(self) -> None:
        """Free the model; calling it again does nothing."""
        with self._lock:
            self._free_once()

    @functools.cached_property
    def _template(self) -> Render:
        template = lib.llama_model_chat_template(self._model, None)
        spellings = {
            "bos_token": self._spelling(lib.llama_vocab_bos(self._vocab)),
            "eos_token": self._spelling(lib.llama_vocab_eos(self._vocab)),
        }
        return jinja_renderer(
            template.decode("utf-8") if template else _CHATML,
            spellings,
            source=f"the chat template in {str(self.path)!r}",
            kind=ModelFileError,
        )

    @functools.cached_property
    def _control_spellings(self) -> re.Pattern[str]:
        control = lib.LLAMA_TOKEN_ATTR_CONTROL | lib.LLAMA_TOKEN_ATTR_UNKNOWN
        return any_of(
            self._spelling(token)
            for token in range(self.n_vocab)
            if lib.llama_vocab_get_attr(self._vocab, token) & control
        )

    def _piece(self, token: int) -> bytes:
        self._must_be_known(token)
        room = ctypes.create_string_buffer(32)
        length = lib.llama_token_to_piece(self._vocab, token, room, len(room), 0, False)  # noqa: FBT003
        if length < 0:
            room = ctypes.create_string_buffer(-length)
            length = lib.llama_token_to_piece(self._vocab, token, room, len(room), 0, False)  # noqa: FBT003
        return room.raw[:length]

    def _spelling(self, token: int) -> str:
        text = lib.llama_vocab_get_text(self._vocab, token) if token >= 0 else b""
        return (text or b"").decode("utf-8", errors="replace")

    def _metadata(self, key: str) -> str:
        room = ctypes.create_string_buffer(256)
        length = lib.llama_model_meta_val_str(self._model, key.encode(), room, len(room))
        return room.value.decode("utf-8", errors="replace") if length > 0 else ""

    def _must_be_known(self, token: int) -> None:
        if not 0 <= token < self.n_vocab:  # llama.cpp would abort the process
            raise SettingsError(f"token {token} is not in the vocabulary, which has ids 0 to {self.n_vocab - 1}")

    def _must_be_open(self) -> None:
        if not self._free_once.alive:
            raise BackendError(f"the model {str(self.path)!r} was closed; load it again to go on")


class GgufVocabulary(ModelTokens):
    """The tokens and the chat template of a GGUF file, whose weights are neither read nor mapped.

    For what needs a model's tokens and computes nothing with them, such as `OpenAICompletionsBackend`. It has
    `tokenize`, `token_bytes`, `token_text`, `is_end` and `chat_tokens` of `LlamaCppBackend`, and is closed likewise.

    Args:
        path: The GGUF file; of a split model, the first part.

    Raises:
        ModelFileError: If the file is missing, not a GGUF file, or cannot be loaded.

    Example:
        ```python
        from correction_graphs.backends.llama_cpp import GgufVocabulary

        with GgufVocabulary("model.gguf") as vocabulary:
            print(len(vocabulary.tokenize("How long is this?")))
        ```
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        with _interrupts_later():
            super().__init__(Path(path), _load_model(Path(path), vocab_only=True))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LlamaCppBackend(CachedBackend):
    """A GGUF model, loaded for many branches at once.

    Args:
        path: The GGUF file; of a split model, the first part.
        n_ctx: How many tokens one branch may hold, and about how many the key/value memory holds in all. By default
            what the model was trained for, at most 8,192.
        n_sequences: How many different ends of text can be cached at once, 2 to 256.
        n_batch: Tokens computed in one call at most; longer prompts take several.
        n_gpu_layers: Layers to offload to a GPU; -1 for all. Without effect where llama.cpp was built for the CPU.
        n_threads: CPU threads; by default one for each core this process may use.
        kept_logits: See `CachedBackend`.
        exact: Keep keys and values in F32, and do without flash attention, which rounds. With weights in F32 too, what
            else is in a batch or in the memory changes a probability by less than 5e-5; by default by up to 6e-4, so
            that a draw near a border can tip. Takes twice the memory.
        trusted: False to open the file in a process of its own first, since a broken one can end the whole process; see
            `correction_graphs.backends.trial`, also for what that does not protect from.

    Raises:
        ModelFileError: If the file is missing, not a GGUF file, or cannot be loaded.
        SettingsError: If a number is out of range.
        BackendError: If llama.cpp cannot make a context of this size.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        n_ctx: int | None = None,
        n_sequences: int = 64,
        n_batch: int = 512,
        n_gpu_layers: int = -1,
        n_threads: int | None = None,
        kept_logits: int = 64,
        exact: bool = False,
        trusted: bool = True,
    ) -> None:
        if n_ctx is not None and not 1 <= n_ctx <= _MAX_CONTEXT:
            raise SettingsError(
                f"`n_ctx` is {n_ctx}; give the number of tokens the context is to hold, 1 to {_MAX_CONTEXT}, or None"
            )
        if not _MIN_SEQUENCES <= n_sequences <= _MAX_SEQUENCES:
            raise SettingsError(
                f"`n_sequences` is {n_sequences}; llama.cpp allows up to {_MAX_SEQUENCES}, and 2 are needed"
            )
        if n_batch < n_sequences:
            raise SettingsError(f"`n_batch` is {n_batch}; give at least `n_sequences`, which is {n_sequences}")
        self.path = Path(path)
        if not trusted:
            try_model_file(
                self.path,
                n_ctx=n_ctx,
                n_sequences=n_sequences,
                n_batch=n_batch,
                n_gpu_layers=n_gpu_layers,
                n_threads=n_threads,
                exact=exact,
            )
        with _interrupts_later():
            model = _load_model(self.path, n_gpu_layers=n_gpu_layers)
            self._tokens = ModelTokens(self.path, model)
            n_vocab = self._tokens.n_vocab
            n_ctx = n_ctx or min(lib.llama_model_n_ctx_train(model) or _DEFAULT_CONTEXT, _DEFAULT_CONTEXT)
            try:
                memory = LlamaMemory(
                    model,
                    n_vocab,
                    n_ctx,
                    n_sequences=n_sequences,
                    n_batch=n_batch,
                    n_threads=n_threads,
                    exact=exact,
                )
            except BaseException:
                self._tokens.close()
                raise
            super().__init__(memory, n_vocab=n_vocab, n_ctx=n_ctx, kept_logits=kept_logits)
            # It keeps the tokens alive, and with them the model, until the context is freed.
            self._free_once = weakref.finalize(self, _free, memory.context, self._tokens)

    @property
    def provider(self) -> str:
        """What runs the model, as LangChain names it."""
        return "llama.cpp"

    @property
    def name(self) -> str:
        """The model's own name, or that of its file."""
        return self._tokens.name

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Turn text into tokens, without adding any; control tokens are recognized in it only if `special`."""
        return self._tokens.tokenize(text, special=special)

    def token_bytes(self, token: int) -> bytes:
        """Return the bytes a token stands for, b"" for control tokens."""
        return self._tokens.token_bytes(token)

    def token_text(self, token: int) -> str:
        """Return a token as it stands in the file; that is how a control token is spelled, such as `<|im_end|>`."""
        return self._tokens.token_text(token)

    def is_end(self, token: int) -> bool:
        """Tell whether the model ends its text, or its turn, with this token."""
        return self._tokens.is_end(token)

    def chat_tokens(self, messages: Sequence[dict[str, str]]) -> list[int]:
        """Turn chat messages into the prompt for the next assistant turn, by the model's own chat template.

        The spelling of a control token in a message's content, such as `<|im_end|>`, stays plain text: content cannot
        end its own turn or forge another.

        Args:
            messages: Dicts with `role` ("system", "user", "assistant") and `content`.

        Raises:
            SettingsError: If the template refuses this order of roles.
            ModelFileError: If the template itself is broken.
        """
        return self._tokens.chat_tokens(messages)

    def _free(self) -> None:
        self._free_once()


class LlamaMemory:
    """The sequences of one llama.cpp context, with one pool of cells for all of them."""

    def __init__(
        self,
        model: Any,
        n_vocab: int,
        n_ctx: int,
        *,
        n_sequences: int,
        n_batch: int,
        n_threads: int | None,
        exact: bool,
    ) -> None:
        self.n_sequences = n_sequences
        self.forwarded_tokens = 0
        self.forward_calls = 0
        self._n_vocab = n_vocab
        params = lib.llama_context_default_params()
        params.n_ctx = n_ctx + _MARGIN
        params.n_seq_max = n_sequences
        params.n_batch = params.n_ubatch = n_batch
        params.n_threads = params.n_threads_batch = n_threads or _usable_cores()
        params.kv_unified = True
        params.swa_full = True  # as many cells for layers with a sliding window as for the others
        params.no_perf = True
        if exact:
            params.type_k = params.type_v = lib.GGML_TYPE_F32
            params.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        _log.clear()
        self.context = lib.llama_init_from_model(model, params)
        if not self.context:
            raise BackendError(
                f"llama.cpp could not make a context of {n_ctx} tokens and {n_sequences} sequences "
                f"(the memory may not suffice; a smaller `n_ctx` needs less): {_last_words()}"
            )
        self._memory = lib.llama_get_memory(self.context)
        recurrent = lib.llama_model_is_recurrent(model)  # a sequence then takes no more room the longer it gets
        # What has slid out of the window may be overwritten, even where cells are left: there is nothing to rewind to.
        slides = 0 < lib.llama_model_n_swa(model) <= n_ctx
        self.n_cells = lib.llama_n_ctx(self.context) * (n_sequences if recurrent else 1)
        self._batch = _Batch(lib.llama_n_batch(self.context), n_sequences)  # at most as asked for
        try:
            self.rewinds = not (recurrent or slides or lib.llama_model_is_hybrid(model)) and self._rewinds()
        except BaseException:
            lib.llama_free(self.context)
            raise
        self.clear()
        self.forwarded_tokens = self.forward_calls = 0

    def copy(self, source: int, target: int, length: int) -> None:
        """Let the empty sequence `target` share the first `length` tokens of `source`."""
        lib.llama_memory_seq_cp(self._memory, source, target, 0, length if self.rewinds else -1)

    def truncate(self, sequence: int, length: int) -> None:
        """Keep only the first `length` tokens of a sequence."""
        if not lib.llama_memory_seq_rm(self._memory, sequence, length, -1):
            raise BackendError(f"llama.cpp refused to cut a sequence to {length} tokens")

    def clear(self) -> None:
        """Empty all sequences."""
        lib.llama_memory_clear(self._memory, True)  # noqa: FBT003

    def compute(self, runs: Sequence[Run]) -> list[Logits]:
        """Run the model over `runs` in order; return a row of logits for each output, each an array of its own."""
        rows: list[Logits] = []
        for part in _parts(runs, self._batch.size):
            outputs = self._batch.fill(part)
            status = lib.llama_decode(self.context, self._batch.struct)
            if status:
                raise BackendError(
                    f"llama.cpp could not compute {self._batch.struct.n_tokens} tokens "
                    f"({_DECODE_STATUS.get(status, f'error {status}')}): {_last_words()}"
                )
            self.forwarded_tokens += self._batch.struct.n_tokens
            self.forward_calls += 1
            for output in outputs:
                row = lib.llama_get_logits_ith(self.context, output)
                rows.append(np.ctypeslib.as_array(row, shape=(self._n_vocab,)).copy())
        return rows

    def _rewinds(self) -> bool:
        """Try it: some memories refuse to be cut, and some say yes without doing so."""
        tokens = [token % self._n_vocab for token in (11, 23, 35, 47)]
        (straight,) = self.compute([Run(tokens, 0, (0,), (3,))])
        self.compute([Run([*tokens[:2], tokens[0], tokens[0]], 0, (1,), ())])
        if not lib.llama_memory_seq_rm(self._memory, 1, 2, -1):
            return False
        (rewound,) = self.compute([Run(tokens[2:], 2, (1,), (1,))])
        return float(np.abs(_probabilities(straight) - _probabilities(rewound)).sum()) < 0.1  # noqa: PLR2004


class _Batch:
    """A `llama_batch` whose arrays are numpy's, so that a long prompt is filled in without a Python loop."""

    def __init__(self, size: int, n_sequences: int) -> None:
        self.size = size
        self._token = np.zeros(size, dtype=np.int32)
        self._pos = np.zeros(size, dtype=np.int32)
        self._n_seq_id = np.zeros(size, dtype=np.int32)
        self._seq_id = np.zeros((size, n_sequences), dtype=np.int32)
        self._wanted = np.zeros(size, dtype=np.int8)
        rows = self._seq_id.ctypes.data + np.arange(size, dtype=np.uintp) * self._seq_id.strides[0]
        self._rows = rows.astype(np.uintp)
        self.struct = lib.llama_batch()
        for field, array, kind in (
            ("token", self._token, ctypes.c_int32),
            ("pos", self._pos, ctypes.c_int32),
            ("n_seq_id", self._n_seq_id, ctypes.c_int32),
            ("seq_id", self._rows, ctypes.POINTER(ctypes.c_int32)),
            ("logits", self._wanted, ctypes.c_int8),
        ):
            setattr(self.struct, field, array.ctypes.data_as(ctypes.POINTER(kind)))

    def fill(self, runs: Sequence[Run]) -> list[int]:
        """Write `runs` into the batch; return the batch rows of their outputs."""
        outputs: list[int] = []
        at = 0
        self._wanted[:] = 0
        for run in runs:
            end = at + len(run.tokens)
            self._token[at:end] = run.tokens
            self._pos[at:end] = np.arange(run.position, run.position + len(run.tokens))
            self._n_seq_id[at:end] = len(run.sequences)
            self._seq_id[at:end, : len(run.sequences)] = run.sequences
            outputs += [at + offset for offset in run.outputs]
            at = end
        self._wanted[outputs] = 1
        self.struct.n_tokens = at
        return outputs


def _parts(runs: Sequence[Run], size: int) -> Iterator[list[Run]]:
    """Cut runs into batches of at most `size` tokens."""
    part: list[Run] = []
    room = size
    for run in runs:
        at = 0
        while at < len(run.tokens):
            end = min(at + room, len(run.tokens))
            outputs = tuple(offset - at for offset in run.outputs if at <= offset < end)
            part.append(Run(run.tokens[at:end], run.position + at, run.sequences, outputs))
            room -= end - at
            at = end
            if not room:
                yield part
                part, room = [], size
    if part:
        yield part


_DECODE_STATUS = {1: "no room in the key/value memory", 2: "aborted", -1: "invalid batch"}

_WARNING_AND_ERROR = (3, 4)  # of ggml_log_level in ggml.h

_log: deque[str] = deque(maxlen=20)
_loading = threading.Lock()


@lib.llama_log_callback  # type: ignore[untyped-decorator]
def _keep_log(level: int, text: bytes, _: Any) -> None:
    """Keep warnings and errors for our own messages, and the terminal clean."""
    if level in _WARNING_AND_ERROR:
        _log.append(text.decode("utf-8", errors="replace").strip())


def _last_words() -> str:
    return "; ".join(list(_log)[-3:]) or "llama.cpp gave no reason"


@functools.cache
def _start_engine() -> None:
    lib.llama_log_set(_keep_log, ctypes.c_void_p(0))
    lib.llama_backend_init()


@contextlib.contextmanager
def _interrupts_later() -> Iterator[None]:
    """Raise Ctrl-C at the end: raised in `_keep_log`, which C calls, it would be lost."""
    usual = signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not usual:
        yield
        return
    noted: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: noted.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if noted:
        raise KeyboardInterrupt


def _load_model(path: Path, *, n_gpu_layers: int = 0, vocab_only: bool = False) -> Any:
    if not path.is_file():
        where = "" if path.is_absolute() else f" in {str(Path.cwd())!r}"
        raise ModelFileError(
            f"there is no model file {str(path)!r}{where}; give the path of a GGUF file (that of the embedded SmolLM2 "
            "is `correction_graphs.models.smollm2_path()`)"
        )
    with path.open("rb") as file:
        magic = file.read(4)
    if magic != b"GGUF":
        raise ModelFileError(f"{str(path)!r} is not a GGUF file: it begins with {magic!r}, expected b'GGUF'")
    with _loading:
        _start_engine()
        params = lib.llama_model_default_params()
        params.vocab_only = vocab_only
        params.n_gpu_layers = n_gpu_layers if lib.llama_supports_gpu_offload() else 0
        _log.clear()
        model = lib.llama_model_load_from_file(os.fsencode(path), params)
        if not model:
            raise ModelFileError(
                f"llama.cpp could not load {str(path)!r}; the file may be damaged or cut off: {_last_words()}"
            )
        return model


def _usable_cores() -> int:
    """Cores this process may run on: in a container often fewer than there are, and more threads make it far slower."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _free(context: Any, tokens: ModelTokens) -> None:
    lib.llama_free(context)
    tokens.close()


def _probabilities(row: Logits) -> Logits:
    exp = np.exp(row - row.max())
    probabilities: Logits = exp / exp.sum()
    return probabilities
