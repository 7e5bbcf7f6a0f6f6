"""What schemathesis is told about the relay's web service: a fresh token for every call, examples that name something that is there,
and a line for every answer. It is loaded by SCHEMATHESIS_HOOKS; TOWPATH_JUDGE names a JSON file:

url        the relay's URL, the audience of the tokens
issuer     the caller, and the file of its RSA key; without it no call has a token
examples   for a call, such as "POST /v1/keys": its body and its parameters by name
answers    the file that gets a line for each answer: call, status, error code
"""

import base64
import json
import os
import secrets
import time

import schemathesis
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding

with open(os.environ["TOWPATH_JUDGE"], encoding="utf-8") as file:
    TOLD = json.load(file)
ANSWERS = open(TOLD["answers"], "w", encoding="utf-8", buffering=1)


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=")


if "issuer" in TOLD:
    with open(TOLD["key"], "rb") as file:
        KEY = serialization.load_pem_private_key(file.read(), None)

    @schemathesis.auth(refresh_interval=None)
    class Token:
        def get(self, case, context):
            now = int(time.time())
            claims = {"iss": TOLD["issuer"], "aud": TOLD["url"], "iat": now, "exp": now + 60, "jti": secrets.token_hex(16)}
            head = json.dumps({"alg": "RS256", "typ": "JWT"}).encode()
            signed = encoded(head) + b"." + encoded(json.dumps(claims).encode())
            return (signed + b"." + encoded(KEY.sign(signed, padding.PKCS1v15(), hashes.SHA256()))).decode()

        def set(self, case, data, context):
            case.headers = {**(case.headers or {}), "Authorization": f"Bearer {data}"}


@schemathesis.hook
def before_load_schema(context, raw_schema):
    for call, example in TOLD["examples"].items():
        method, path = call.split(" ")
        operation = raw_schema["paths"][path][method.lower()]
        for parameter in operation.get("parameters", ()):
            if parameter["name"] in example:
                parameter["example"] = example[parameter["name"]]
        if "body" in example:
            operation["requestBody"]["content"]["application/json"]["example"] = example["body"]


@schemathesis.hook
def after_call(context, case, response):
    code = None
    if response.headers.get("content-type", [""])[0].startswith("application/problem+json"):
        code = json.loads(response.content)["code"]
    ANSWERS.write(f"{json.dumps([case.operation.label, response.status_code, code])}\n")
