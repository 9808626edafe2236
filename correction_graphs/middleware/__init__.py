"""Middleware for LangChain's `create_agent`: the methods around the model calls of an agent."""
