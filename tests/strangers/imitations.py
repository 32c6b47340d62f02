"""Imitations of well-known servers, from their documentation and issues: what each refuses, its messages and its responses."""

import json
import random
from collections.abc import Callable

from tests.llm.servers import JSON, Reply, chat, is_probe

Behaviour = Callable[[dict], Reply]
WORDS = ("positive", "neutral", "negative")


def label(body: dict) -> str:
    """A random label, or digits for a probe."""
    return f"{random.random():.12f}" if is_probe(body) else random.choice(WORDS)


def drawn(body: dict, **choice: object) -> Reply:
    return chat([label(body) for _ in range(body.get("n", 1))], **choice)


def error(status: int, body: object, **headers: str) -> Reply:
    return Reply(status, body if isinstance(body, str) else json.dumps(body), JSON | headers)


def has_system(body: dict) -> bool:
    return any(message["role"] == "system" for message in body["messages"])


def message(**fields: object) -> Behaviour:
    """A server that responds to real requests with one message with these fields."""
    return lambda body: drawn(body) if is_probe(body) else chat([""], message={"role": "assistant", **fields})


def refusing(*names: str, with_reply: Callable[[str], Reply]) -> Behaviour:
    """Refuses each of the parameters, one at a time."""

    def behave(body: dict) -> Reply:
        name = next((name for name in names if (has_system(body) if name == "system" else name in body)), None)
        return with_reply(name) if name else drawn(body)

    return behave


def openai(body: dict) -> Reply:
    """Supports `n`, a JSON schema and log-probabilities."""

    def content() -> str:
        if "response_format" not in body:
            return label(body)
        properties = body["response_format"]["json_schema"]["schema"]["properties"]
        return json.dumps({name: random.choice(each.get("enum", ["as said"])) for name, each in properties.items()})

    texts = [content() for _ in range(body.get("n", 1))]
    payload = json.loads(str(chat(texts).body))
    if body.get("logprobs"):
        for choice, text in zip(payload["choices"], texts, strict=True):
            choice["logprobs"] = {"content": [{"token": text, "logprob": -0.1}]}
    return Reply(body=json.dumps(payload))


def ollama(body: dict) -> Reply:
    """Returns one choice, whatever `n`; a model that is not pulled is not found."""
    if body["model"] != "llama3.1":
        words = f'model "{body["model"]}" not found, try pulling it first'
        return error(404, {"error": {"message": words, "type": "api_error", "param": None, "code": None}})
    return drawn({**body, "n": 1})


def lm_studio(body: dict) -> Reply:
    """Returns errors as plain strings and counts no tokens."""
    for name in ("response_format", "logprobs"):
        if name in body:
            return error(400, {"error": f"'{name}' is not a known field"})
    return chat([label(body) for _ in range(body.get("n", 1))], usage={"prompt_tokens": 0, "completion_tokens": 0})


def llama_cpp(body: dict) -> Reply:
    """Reports template errors with status 500, allows one choice, and limits the prompt."""
    if has_system(body):
        return error(500, {"error": {"code": 500, "message": "System role not supported", "type": "server_error"}})
    if body.get("n", 1) > 1:
        words = "Only one completion choice is allowed"
        return error(400, {"error": {"code": 400, "message": words, "type": "invalid_request_error"}})
    if len(str(body["messages"])) > 4000:
        words = "the request exceeds the available context size, try increasing it"
        return error(400, {"error": {"code": 400, "message": words, "type": "exceed_context_size_error"}})
    return drawn(body)


def gpt5(body: dict) -> Reply:
    def unsupported(name: str, words: str, code: str, status: int = 400) -> Reply:
        param = None if status == 403 else name
        return error(status, {"error": {"message": words, "type": "invalid_request_error", "param": param, "code": code}})

    if "max_tokens" in body:
        words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
        return unsupported("max_tokens", words, "unsupported_parameter")
    if body.get("temperature", 1) != 1:
        words = "Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) value is supported."
        return unsupported("temperature", words, "unsupported_value")
    if "logprobs" in body:
        return unsupported("logprobs", "You are not allowed to request logprobs from this model", "invalid", 403)
    return drawn(body)


def o1_mini(body: dict) -> Reply:
    if has_system(body):
        words = "Unsupported value: 'messages[0].role' does not support 'system' with this model."
        return error(400, {"error": {"message": words, "param": "messages[0].role", "code": "unsupported_value"}})
    return gpt5(body)


def of_pydantic(name: str) -> dict:
    fault = {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted", "input": "temperature, n"}
    return {"detail": [fault]}


def azure_filter(text: str) -> dict:
    words = "The response was filtered due to the prompt triggering Azure OpenAI's content management policy."
    inner = {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}}
    return {"error": {"message": words, "param": "prompt", "code": "content_filter", "status": 400, "innererror": inner}}


def vllm_error(words: str) -> dict:
    return {"object": "error", "message": words, "type": "BadRequestError", "param": None, "code": 400}


# Name -> behaviour. All texts can be labelled by each of them.
SERVERS: dict[str, Behaviour] = {
    "OpenAI GPT-4": drawn,
    "OpenAI GPT-5": gpt5,
    "OpenAI o1-mini": o1_mini,
    "logprobs not found": refusing(
        "logprobs", with_reply=lambda n: error(404, {"error": {"message": "logprobs is not supported"}})
    ),
    "Mistral, 422 by loc": refusing("logprobs", "seed", with_reply=lambda n: error(422, of_pydantic(n))),
    "Mistral, 422 inside message": refusing(
        "seed", "response_format", with_reply=lambda n: error(422, {"object": "error", "message": of_pydantic(n), "code": None})
    ),
    "Mistral, thinking in parts": message(
        content=[{"type": "thinking", "thinking": [{"type": "text", "text": "negative?"}]}, {"type": "text", "text": "positive"}]
    ),
    "vLLM, Gemma": refusing("system", with_reply=lambda n: error(400, vllm_error("System role not supported"))),
    "vLLM, roles": refusing(
        "system",
        with_reply=lambda n: error(400, vllm_error("Conversation roles must alternate user/assistant/user/assistant/...")),
    ),
    "TGI, template": refusing(
        "system",
        with_reply=lambda n: error(
            422, {"error": "Template error: invalid operation: System role not supported", "error_type": "template_error"}
        ),
    ),
    "llama.cpp, template": refusing(
        "system",
        with_reply=lambda n: error(500, {"error": {"code": 500, "message": "System role not supported", "type": "server_error"}}),
    ),
    "Gemini, Gemma": refusing(
        "system",
        with_reply=lambda n: error(
            400, [{"error": {"code": 400, "message": "Developer instruction is not enabled for gemma-3"}}]
        ),
    ),
    "system role refused without a word": refusing("system", with_reply=lambda n: error(400, "Bad Request")),
    "LM Studio, error as string": refusing(
        "response_format", "logprobs", with_reply=lambda n: error(400, {"error": f"'{n}' is not a known field"})
    ),
    "error under status 200": refusing(
        "seed", with_reply=lambda n: error(200, {"error": {"message": "Unrecognized argument: seed"}})
    ),
    "plain text": refusing("n", "temperature", with_reply=lambda n: error(400, f"bad request: unknown field `{n}`")),
    "refused by 501": refusing("logprobs", with_reply=lambda n: error(501, {"error": "logprobs not implemented"})),
    "refused only after probing": lambda body: (
        error(400, {"error": {"message": "seed is not allowed", "param": "seed"}})
        if "seed" in body and not is_probe(body)
        else drawn(body)
    ),
    "OpenAI, all that there is": openai,
    "Ollama, one choice": lambda body: drawn({**body, "n": 1}),
    "reasoning in its own field": message(content="neutral", reasoning_content="it may be positive"),
    "thinking and label on one line": message(content="<think>negative? no</think> positive"),
    "thinking opened by the prompt": message(content="It could be negative.\n</think>\n\nneutral"),
    "tool call": message(
        content=None, tool_calls=[{"type": "function", "function": {"name": "f", "arguments": '{"sentiment": "positive"}'}}]
    ),
    "content in parts": message(content=[{"type": "text", "text": "Sentiment: "}, {"type": "text", "text": "positive"}]),
    "content that is parsed JSON": message(content={"sentiment": "positive"}),
    "legacy completions": lambda body: error(200, {"choices": [{"text": label(body), "finish_reason": "stop"}]}),
}
