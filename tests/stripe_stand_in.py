"""A server that answers as Stripe's API does, as far as payments go, and signs webhooks as Stripe does."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import aiohttp
from aiohttp import web

KEY = "sk_test_of_the_tests"
SECRET = "whsec_of_the_tests"


@dataclass
class StripeStandIn:
    """`asked` is every call, as (verb, path, form, Idempotency-Key); `broken` answers the next ones otherwise.

    `gives_back` is the status of refunds that are asked for.
    """

    intents: dict[str, dict[str, Any]] = field(default_factory=dict)
    refunds: list[dict[str, Any]] = field(default_factory=list)
    asked: list[tuple[str, str, dict[str, str], str | None]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    gives_back: str = "succeeded"
    _answers: dict[str, tuple[dict[str, str], int, dict[str, Any]]] = field(default_factory=dict)

    async def start(self) -> StripeStandIn:
        app = web.Application()
        app.router.add_route("*", "/v1/{path:.*}", self._serve)
        self.gate = asyncio.Event()
        self.gate.set()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def stop(self) -> None:
        self.gate.set()
        await self._runner.cleanup()

    @property
    def environ(self) -> dict[str, str]:
        """The settings of an instance that pays by it."""
        return {
            "PARLEY_PAYMENTS": "stripe",
            "PARLEY_STRIPE_KEY": KEY,
            "PARLEY_STRIPE_WEBHOOK_SECRET": SECRET,
            "PARLEY_STRIPE_URL": self.url,
        }

    def calls(self, path: str) -> list[dict[str, str]]:
        """The forms that were posted to a path that ends so."""
        return [form for _, asked, form, _ in self.asked if asked.endswith(path)]

    async def _serve(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        key = request.headers.get("Idempotency-Key")
        self.asked.append((request.method, request.match_info["path"], form, key))
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return _said(401, {"error": {"type": "invalid_request_error", "message": "Invalid API Key"}})
        if self.broken:
            how = self.broken.pop(0)
            if how == "down":
                return _said(503, {"error": {"type": "api_error", "message": "down"}})
            if how == "refused":
                return _said(402, {"error": {"type": "card_error", "code": "card_declined", "message": "No."}})
            if how == "too small":
                return _said(400, _refused("amount_too_small"))
            if how == "garbage":
                return web.Response(text="<html>", status=200)
            if how == "cut":
                assert request.transport
                request.transport.abort()
            if how == "done, then cut":
                self._answer(request.method, request.match_info["path"], form, key)
                assert request.transport
                request.transport.abort()
        await self.gate.wait()
        return _said(*self._answer(request.method, request.match_info["path"], form, key))

    def _answer(self, method: str, path: str, form: dict[str, str], key: str | None) -> tuple[int, dict[str, Any]]:
        if method == "POST" and key in self._answers:
            before, status, body = self._answers[key]
            if before != form:
                return 400, {"error": {"type": "idempotency_error", "message": "another body"}}
            return status, body
        status, body = self._do(method, path.split("/"), form)
        if method == "POST" and key is not None:
            self._answers[key] = (form, status, body)
        return status, body

    def _do(self, method: str, path: list[str], form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if path == ["payment_intents"]:
            intent_id = f"pi_{uuid4().hex}"
            self.intents[intent_id] = {
                "id": intent_id,
                "object": "payment_intent",
                "amount": int(form["amount"]),
                "amount_received": 0,
                "currency": form["currency"],
                "client_secret": f"{intent_id}_secret_{uuid4().hex}",
                "metadata": {"transaction_id": form["metadata[transaction_id]"]},
                "latest_charge": None,
                "status": "requires_payment_method",
            }
            return 200, dict(self.intents[intent_id])
        if path == ["refunds"]:
            intent = self.intents[form["payment_intent"]]
            if intent["status"] != "succeeded":
                return 400, _refused("charge_not_captured")
            given = [refund for refund in self.refunds if refund["payment_intent"] == intent["id"]]
            if any(refund["status"] != "failed" for refund in given):
                return 400, _refused("charge_already_refunded")
            refund = {"id": f"re_{uuid4().hex}", "object": "refund", "payment_intent": intent["id"]}
            self.refunds.append({**refund, "status": self.gives_back, "failure_reason": None})
            return 200, dict(self.refunds[-1])
        intent = self.intents[path[1]]
        if path[2:] == ["cancel"]:
            if intent["status"] in ("succeeded", "canceled", "processing"):
                return 400, _refused("payment_intent_unexpected_state")
            intent["status"] = "canceled"
        return 200, dict(intent)

    def pay(self, intent_id: str, *, amount: int | None = None) -> dict[str, Any]:
        """A buyer pays: the event that tells of it."""
        intent = self.intents[intent_id]
        received = intent["amount"] if amount is None else amount
        intent.update(status="succeeded", amount_received=received, latest_charge=f"ch_{uuid4().hex}")
        return event("payment_intent.succeeded", intent)

    def refunded(self, intent_id: str, *, whole: bool = True, after_s: int = 0) -> dict[str, Any]:
        """The event that tells of a refund."""
        intent = self.intents[intent_id]
        charge = {"id": intent["latest_charge"], "object": "charge", "payment_intent": intent_id, "refunded": whole}
        return event("charge.refunded", {**charge, "currency": intent["currency"]}, after_s=after_s)

    def bounced(self, intent_id: str, type_: str = "refund.failed", *, after_s: int = 0) -> dict[str, Any]:
        """The last refund of a payment does not arrive: the event that tells of it, so long after now."""
        refund = [refund for refund in self.refunds if refund["payment_intent"] == intent_id][-1]
        refund.update(status="failed", failure_reason="expired_or_canceled_card")
        return event(type_, {**refund, "currency": self.intents[intent_id]["currency"]}, after_s=after_s)


def event(type_: str, about: dict[str, Any], *, after_s: int = 0) -> dict[str, Any]:
    """An event, as Stripe tells it, of so long after now."""
    told = {"id": f"evt_{uuid4().hex}", "object": "event", "api_version": "2025-01-01", "type": type_}
    return {**told, "created": int(time.time()) + after_s, "data": {"object": dict(about)}}


def signed(body: bytes, *, secret: str = SECRET, age_s: int = 0) -> str:
    """The header with which Stripe signs a body (docs.stripe.com/webhooks: v1 is HMAC-SHA-256 of time and body)."""
    at = int(time.time()) - age_s
    digest = hmac.new(secret.encode(), f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={digest}"


async def tell(url: str, told: dict[str, Any] | bytes, signature: str | None = None) -> tuple[int, dict[str, Any]]:
    """Post a webhook to an instance, signed unless a signature is given; its status and answer."""
    body = told if isinstance(told, bytes) else json.dumps(told, indent=2).encode()
    headers = {"Stripe-Signature": signed(body) if signature is None else signature}
    async with aiohttp.ClientSession() as http, http.post(f"{url}/webhooks/stripe", data=body, headers=headers) as said:
        return said.status, await said.json()


def _refused(code: str) -> dict[str, Any]:
    return {"error": {"type": "invalid_request_error", "code": code, "message": code}}


def _said(status: int, body: dict[str, Any]) -> web.Response:
    return web.json_response(body, status=status, headers={"Request-Id": f"req_{uuid4().hex}"})
