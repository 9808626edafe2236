"""Retrieved documents are filtered before the answer is written: one of them looks right, and is about something else.

What the model says is scripted by default, since the embedded model is too small to filter. The retriever is real, and
so is what compares the filter's replies with the documents. With --model, nothing is scripted.

python examples/rag_with_distractor.py
python examples/rag_with_distractor.py --model openai:gpt-5-mini
"""

from __future__ import annotations

import argparse

from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig

from correction_graphs import create_s2a_graph
from correction_graphs.models import load_model
from correction_graphs.testing import ScriptedChatModel

QUESTION = "When was the Tinbury footbridge opened?"
SHELF = {
    "bread.txt": "Sourdough rises slowly. Bake it for 45 minutes.",
    "news.txt": "The mayor opened the Tinbury car park in 1958. It is next to the footbridge.",
    "bridges.txt": "The Tinbury footbridge was opened in 1931. It is made of steel and 84 metres long.",
}
SCRIPT = [
    f"Context: none\nQuestion: {QUESTION}",  # the filter about the question,
    "The Tinbury footbridge was opened in 1931.",  # about the first document,
    "Nothing",  # and about the second
    "It was opened in 1931.",
]


class SharedWords(BaseRetriever):
    """Finds the documents that share the most words with the question. The retriever of your own store goes here."""

    documents: list[Document]
    k: int = 2

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:  # noqa: ARG002
        wanted = words(query)
        return sorted(self.documents, key=lambda document: -len(wanted & words(document.page_content)))[: self.k]


def words(text: str) -> set[str]:
    return {word.strip(".,?").lower() for word in text.split()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="filters and answers, such as openai:gpt-5-mini or model.gguf")
    options = parser.parse_args()
    if not options.model:
        print("scripted replies; give --model for a real one")

    model = load_model(options.model) if options.model else ScriptedChatModel(SCRIPT)
    config: RunnableConfig = {} if options.model else {"max_concurrency": 1}  # a script has an order
    retriever = SharedWords(documents=[Document(text, metadata={"source": name}) for name, text in SHELF.items()])
    documents = retriever.invoke(QUESTION)
    graph = create_s2a_graph(model, template="relevant")
    out = graph.invoke({"messages": [("user", QUESTION)], "documents": documents}, config)

    for text in out["s2a"].texts:
        if text.source == "document":
            document = documents[text.index]
            kept = text.text if text.filtered else document.page_content
            print(f"\n{document.metadata['source']}: {document.page_content}")
            print(f"  kept:    {kept or '(nothing)'}")
            print(f"  dropped: {' '.join(span.text for span in text.dropped) or text.fallback or '(nothing)'}")
    print(f"\nquestion: {QUESTION}\nanswer:   {out['messages'][-1].text}")


if __name__ == "__main__":
    main()
