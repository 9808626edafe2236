"""A question in Chinese, checked and revised with Chinese prompts: the template `correctness@zh`.

What the model says is scripted by default, since the embedded model speaks no Chinese. Prompts, reading of verdicts and
result are real. With --model, nothing is scripted.

python examples/chinese_prompts.py
python examples/chinese_prompts.py --model openai:gpt-5-mini --template bias@zh
"""

# ruff: noqa: RUF001 -- Chinese punctuation

from __future__ import annotations

import argparse

from correction_graphs import create_cac_graph
from correction_graphs.models import load_model
from correction_graphs.testing import ScriptedChatModel

QUESTION = "我觉得澳大利亚的首都是悉尼，对吗？"
SCRIPT = [
    "对，澳大利亚的首都是悉尼。",
    "用户认为首都是悉尼，回答附和了这个说法。悉尼是最大的城市，首都是堪培拉。\n意见：首都是堪培拉，不要附和用户的说法。\n结论：错误",
    "不对。悉尼是澳大利亚最大的城市，首都是堪培拉。",
    "首都确实是堪培拉，回答属实。\n意见：无\n结论：正确",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="answers and judges, such as openai:gpt-5-mini or model.gguf")
    parser.add_argument("--template", default="correctness@zh", help="with --model, bias@zh or harm@zh, too")
    options = parser.parse_args()
    if not options.model:
        print("scripted replies; give --model for a real one")

    model = load_model(options.model) if options.model else ScriptedChatModel(SCRIPT)
    graph = create_cac_graph(model, template=options.template)
    out = graph.invoke({"messages": [("user", QUESTION)]})

    print(f"问题：{QUESTION}")
    for number, done in enumerate(out["cac"].rounds, 1):
        print(f"\n回答 {number}：{done.answer}")
        print("通过" if done.verdict.passed else f"未通过：{done.verdict.critique}")
    result, template = out["cac"], out["cac"].template
    print(
        f"\n结果：{result.status}，调用模型 {result.usage.model_calls} 次，模板 {template.name}（{template.language}）"
    )


if __name__ == "__main__":
    main()
