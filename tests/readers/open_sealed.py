"""Opens what Firn has sealed, with OpenSSL (Python's `cryptography`), and makes its tokens with Python's own HMAC.

One JSON request a line on stdin, one JSON answer a line on stdout:
  {"key": base64, "text": base64(iv + ciphertext + tag), "aad": text}   -> the plaintext
  {"token": base64, "text": plaintext}   -> the token
  {"publicKey": base64, "signature": base64, "text": what was signed}   -> whether Ed25519 says so
"""

import base64
import hashlib
import hmac
import json
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


def signed(request):
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(request["publicKey"]))
    try:
        key.verify(base64.b64decode(request["signature"]), request["text"].encode())
        return "yes"
    except InvalidSignature:
        return "no"


for line in sys.stdin:
    request = json.loads(line)
    if "signature" in request:
        answer = signed(request)
    elif "token" in request:
        secret = base64.b64decode(request["token"])
        answer = hmac.new(secret, request["text"].encode(), hashlib.sha256).hexdigest()
    else:
        sealed = base64.b64decode(request["text"])
        key = AESGCM(base64.b64decode(request["key"]))
        answer = key.decrypt(sealed[:12], sealed[12:], request["aad"].encode()).decode()
    print(json.dumps(answer), flush=True)
