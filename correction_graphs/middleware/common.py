"""What the middleware of both methods shares."""

from __future__ import annotations

from langchain_core.runnables import RunnableConfig

from correction_graphs.errors import MissingExtraError, SettingsError

try:
    from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
    from langchain.agents.middleware.types import ExtendedModelResponse, OmitFromInput, PrivateStateAttr
except ImportError as error:
    raise MissingExtraError("middleware for agents", extra="agents") from error

__all__ = [
    "AgentMiddleware",
    "AgentState",
    "ExtendedModelResponse",
    "ModelRequest",
    "ModelResponse",
    "OmitFromInput",
    "PrivateStateAttr",
    "instance_name",
    "is_durable",
]

_TAKEN = {"messages", "jump_to", "structured_response", "remaining_steps"}


def instance_name(name: str, usual: str) -> str:
    """Return the name of a middleware, which is the key of its result in the agent's state, too.

    Raises:
        SettingsError: If it cannot be one.
    """
    if not isinstance(name, str) or not name.isidentifier() or name in _TAKEN:
        raise SettingsError(f"`name` is {name!r}; give a word that is no key of the agent's state, such as {usual!r}")
    return name


def is_durable(config: RunnableConfig) -> bool:
    """Whether a run can be resumed; then the model's node runs from its start, with the tasks of the checkpoint."""
    return "thread_id" in config.get("configurable", {})
